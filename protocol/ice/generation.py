"""What hangs on one pair of credentials of each side, and goes with them in a restart (RFC 8445 §9).

An agent has one generation, and while it restarts two: the previous one keeps the old path alive until the present one
has selected its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from protocol.ice.checks import Checks
from protocol.ice.credentials import IceCredentials
from protocol.ice.responder import Responder
from protocol.stun.binding import Binding
from protocol.wire import Entropy

__all__ = ["Generation"]


class CheckConfig(Protocol):
    """The part of an agent's configuration that is about its own checks."""

    @property
    def check_transmissions(self) -> int: ...

    @property
    def check_final_wait(self) -> float: ...


@dataclass(slots=True, eq=False)
class Generation:
    responder: Responder
    checks: Checks
    nomination: int = -1  # the renomination value of the selected path; only a greater one moves it

    @classmethod
    def begin(
        cls,
        local: IceCredentials,
        remote: IceCredentials,
        *,
        entropy: Entropy,
        config: CheckConfig,
        rtt: float | None = None,
    ) -> Generation:
        """`rtt`: what the previous generation measured stands until this one has measured its own."""
        checks = Checks(
            local,
            remote,
            entropy=entropy,
            transmissions=config.check_transmissions,
            final_wait=config.check_final_wait,
            rtt=rtt,
        )
        return cls(Responder(local, remote), checks)

    def is_asked(self, binding: Binding) -> bool:
        """Whether this request names our ufrag of this generation; nothing is authentic yet."""
        return binding.username is not None and binding.username.startswith(self.responder.prefix)

    def has_sent(self, binding: Binding) -> bool:
        """Whether this answer ends a check of this generation; nothing is authentic yet."""
        return self.checks.is_under_way(binding.transaction_id)

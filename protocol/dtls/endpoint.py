"""A DTLS endpoint: what the peer layer holds. Chooses the association and hands the verbs on.

The association is made when the first verb needs it: a call that nobody follows up must be cheap.

There is one association today, of DTLS 1.2; which version a hello asks for is judged here once there are two.
"""

from __future__ import annotations

import math
from collections import Counter

from protocol.dtls.association12 import Association12, Life
from protocol.dtls.config import DtlsConfig
from protocol.dtls.cookies import VerifiedHello
from protocol.dtls.events import Output, Role
from protocol.dtls.fingerprint import Fingerprint
from protocol.dtls.handshake12 import Parameters
from protocol.dtls.identity import Identity
from protocol.errors import LocalError
from protocol.wire import Entropy

__all__ = ["DtlsEndpoint"]

_DEFAULTS = DtlsConfig()


class DtlsEndpoint:
    """Sans-IO: after each call that changes anything, drain `poll()`. Times are monotonic seconds."""

    def __init__(
        self,
        role: Role,
        identity: Identity,
        *,
        peer_fingerprints: tuple[Fingerprint, ...],
        srtp_profiles: tuple[int, ...],
        entropy: Entropy,
        config: DtlsConfig | None = None,
        verified: VerifiedHello | None = None,  # a server behind a cookie exchange: what that has found
    ) -> None:
        if verified is not None and role is not Role.SERVER:
            raise LocalError("only a server follows a cookie exchange")
        self.role = role
        self.drops: Counter[str] = Counter()
        config = config or _DEFAULTS
        self._parameters = Parameters(identity, peer_fingerprints, srtp_profiles, entropy, config, verified)
        self._made: Association12 | None = None

    @property
    def _association(self) -> Association12:
        if self._made is None:
            self._made = Association12(self.role, self._parameters, self.drops)
        return self._made

    @property
    def is_connected(self) -> bool:
        return self._made is not None and self._made.life is Life.CONNECTED

    @property
    def is_closed(self) -> bool:
        return self._made is not None and self._made.life is Life.CLOSED

    @property
    def retransmissions(self) -> int:
        """How often a whole flight was sent again."""
        return self._made.retransmissions if self._made is not None else 0

    @property
    def maximum_application_data(self) -> int:
        """Bytes that `send` takes at once; known exactly when connected."""
        return self._association.maximum_application_data

    def start(self, now: float) -> None:
        """The client sends its hello; the server's time to complete the handshake begins."""
        self._association.start(now)

    def receive_untrusted(self, data: bytes | memoryview, now: float) -> None:
        """Never raises: what is bad is counted in `drops` or ends the association with a Closed event."""
        self._association.receive_untrusted(data if type(data) is bytes else bytes(data), now)

    def handle_timeout(self, now: float) -> None:
        if self._made is not None:
            self._made.handle_timeout(now)

    def next_timeout(self) -> float:
        return self._made.next_timeout() if self._made is not None else math.inf

    def poll(self) -> list[Output]:
        return self._made.poll() if self._made is not None else []

    def send(self, data: bytes, now: float) -> None:
        self._association.send(data)

    def close(self, now: float) -> None:
        """Sends close_notify; the Closed event follows."""
        self._association.close()

    def export_keying_material(self, label: bytes, context: bytes | None, length: int) -> bytes:
        return self._association.export(label, context, length)

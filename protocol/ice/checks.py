"""The client half of connectivity checks: our own Binding requests, their repetitions and their answers.

1. `send` makes a check with a fresh transaction id and remembers it (RFC 8489 §6.2.1).
2. `handle_timeout` repeats the same bytes after RTO, 2 RTO, 4 RTO..., and gives up a while after the last one.
3. `answered_untrusted` accepts an answer only if the id is one of ours, it came along the very path the check went
   (RFC 8445 §7.2.5.2.1), and its integrity is right under the peer's password. Anything else changes nothing, so that
   a forged answer cannot stop the repetitions either (RFC 8489 §9.1.4).
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator
from dataclasses import dataclass

from protocol.address import Path
from protocol.errors import DecodeError
from protocol.ice.candidate import candidate_priority
from protocol.ice.credentials import IceCredentials
from protocol.ice.events import SendTo
from protocol.stun.binding import Binding, authenticate, binding_request
from protocol.stun.message import TRANSACTION_ID_LENGTH
from protocol.wire import Entropy

__all__ = ["Check", "Checks", "Purpose"]

# Specification constants
RTO = 0.5  # RFC 8489 §6.2.1 and RFC 8445 §14.3: at least 500 ms
_PRIORITY = candidate_priority("prflx")  # RFC 8445 §7.1.1: what the peer would have to give a candidate it learns

# Implementation constants
MAX_CHECKS = 96  # under way at once; the oldest is forgotten
_RTT_GAIN = 0.125  # RFC 6298 §2


class Purpose(enum.IntEnum):
    """Why a check was sent; a stronger reason is a greater number."""

    CONSENT = 0  # is this path still alive?
    SILENCE = 1  # may we move here? the selected path fell silent
    MEDIA = 2  # may we move here? authenticated media comes from here
    NOMINATION = 3  # may we move here? the client nominated it
    ORDINARY = 4  # full agent: is this pair valid?
    NOMINATE = 5  # full agent: take this pair


@dataclass(slots=True)
class Check:
    """One transaction of ours."""

    transaction_id: bytes
    path: Path
    purpose: Purpose
    controlling: bool
    use_candidate: bool
    data: bytes
    started: float
    due: float  # when to repeat, or to give up
    interval: float
    remaining: int  # transmissions left
    repeated: bool = False
    nomination: int = -1  # the renomination value of the request that triggered it


class Checks:
    """All checks under way of one agent."""

    __slots__ = ("_checks", "_entropy", "_final_wait", "_key", "_next", "_transmissions", "_username", "rtt")

    def __init__(
        self,
        local: IceCredentials,
        remote: IceCredentials,
        *,
        entropy: Entropy,
        transmissions: int,
        final_wait: float,
        rtt: float | None = None,
    ) -> None:
        self._username = f"{remote.ufrag}:{local.ufrag}".encode()
        self._key = remote.pwd.encode()
        self._entropy = entropy
        self._transmissions = transmissions
        self._final_wait = final_wait
        self._checks: dict[bytes, Check] = {}
        self._next = math.inf
        self.rtt = rtt

    def __len__(self) -> int:
        return len(self._checks)

    def __iter__(self) -> Iterator[Check]:
        return iter(self._checks.values())

    def is_under_way(self, transaction_id: bytes) -> bool:
        return transaction_id in self._checks

    def find(self, path: Path) -> Check | None:
        """The newest check under way along this path."""
        return next((check for check in reversed(self._checks.values()) if check.path == path), None)

    def send(
        self,
        path: Path,
        now: float,
        purpose: Purpose,
        *,
        tie_breaker: int,
        controlling: bool = False,
        use_candidate: bool = False,
        rto: float = RTO,
        nomination: int = -1,
    ) -> SendTo:
        """Start a check. Consent checks are sent once and never repeated (RFC 7675 §5.1)."""
        transaction_id = self._entropy(TRANSACTION_ID_LENGTH)
        data = binding_request(
            transaction_id,
            self._username,
            self._key,
            priority=_PRIORITY,
            controlling=controlling,
            tie_breaker=tie_breaker,
            use_candidate=use_candidate,
        )
        once = purpose is Purpose.CONSENT
        interval = self._final_wait if once else rto
        remaining = 0 if once else self._transmissions - 1
        check = Check(
            transaction_id=transaction_id,
            path=path,
            purpose=purpose,
            controlling=controlling,
            use_candidate=use_candidate,
            data=data,
            started=now,
            due=now + interval,
            interval=interval,
            remaining=remaining,
            nomination=nomination,
        )
        if len(self._checks) >= MAX_CHECKS:
            del self._checks[next(iter(self._checks))]
        self._checks[transaction_id] = check
        self._next = min(self._next, check.due)
        return SendTo(data, path)

    def answered_untrusted(self, data: bytes, binding: Binding, path: Path, now: float) -> Check:
        """The check that this answer, of either class, ends; DecodeError if it ends none."""
        check = self._checks.get(binding.transaction_id)
        if check is None:
            raise DecodeError("stun_transaction")
        if check.path != path:
            raise DecodeError("ice_answer_path")
        if not authenticate(data, binding, self._key):
            raise DecodeError("stun_integrity")
        del self._checks[binding.transaction_id]
        self._rearm()
        if not check.repeated:  # else nobody knows which transmission was answered (Karn)
            sample = now - check.started
            self.rtt = sample if self.rtt is None else self.rtt + _RTT_GAIN * (sample - self.rtt)
        return check

    def handle_timeout(self, now: float) -> tuple[list[SendTo], list[Check]]:
        """What to send again, and the checks that nobody answered."""
        sends: list[SendTo] = []
        expired: list[Check] = []
        if now < self._next:
            return sends, expired
        for check in list(self._checks.values()):
            if now < check.due:
                continue
            if check.remaining:
                check.remaining -= 1
                check.repeated = True
                check.interval = check.interval * 2 if check.remaining else self._final_wait
                check.due = now + check.interval
                sends.append(SendTo(check.data, check.path))
            else:
                del self._checks[check.transaction_id]
                expired.append(check)
        self._rearm()
        return sends, expired

    def stop_repeating(self, path: Path | None = None) -> None:
        """Send no more of these checks; late answers still count (RFC 8445 §8.1.2)."""
        for check in self._checks.values():
            if path is None or check.path == path:
                check.remaining = 0

    def clear(self) -> None:
        self._checks.clear()
        self._next = math.inf

    def next_timeout(self) -> float:
        return self._next

    def _rearm(self) -> None:
        self._next = min((check.due for check in self._checks.values()), default=math.inf)

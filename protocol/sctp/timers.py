"""The small timers of an association: T1 and T2, which repeat a control chunk, and the heartbeat (RFC 9260 §8.3)."""

from __future__ import annotations

import hmac
import math

from protocol.sctp.parameters import ParameterType, build_parameter
from protocol.wire import Entropy

__all__ = ["ControlTimer", "Heartbeat"]


class ControlTimer:
    """Doubles with each repeat, up to a maximum; the owner bounds `repeats`."""

    __slots__ = ("_first", "_longest", "_timeout", "deadline", "repeats")

    def __init__(self, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self._timeout = first
        self.repeats = 0
        self.deadline = math.inf

    def start(self, now: float) -> None:
        self._timeout = self._first
        self.repeats = 0
        self.deadline = now + self._timeout

    def repeat(self, now: float) -> None:
        self._timeout = min(self._timeout * 2, self._longest)
        self.repeats += 1
        self.deadline = now + self._timeout

    def stop(self) -> None:
        self.deadline = math.inf

    def expired(self, now: float) -> bool:
        return self.deadline <= now


class Heartbeat:
    """Asks an idle peer whether it is there; the answer must carry what was asked."""

    __slots__ = ("_entropy", "_interval", "_nonce", "deadline")

    def __init__(self, interval: float, entropy: Entropy) -> None:
        self._interval = interval
        self._entropy = entropy
        self._nonce = b""
        self.deadline = math.inf

    @property
    def unanswered(self) -> bool:
        return bool(self._nonce)

    def start(self, now: float) -> None:
        self.deadline = now + self._interval

    def stop(self) -> None:
        self._nonce = b""
        self.deadline = math.inf

    def beat(self, now: float, idle: bool) -> bytes:
        """The heartbeat information to send; empty when data is on its way, which asks the same question."""
        self._nonce = self._entropy(8) if idle else b""
        self.deadline = now + self._interval
        return self._nonce

    def answered(self, value: bytes) -> bool:
        if not self._nonce:
            return False
        if not hmac.compare_digest(build_parameter(ParameterType.HEARTBEAT_INFO, self._nonce), value):
            return False
        self._nonce = b""
        return True

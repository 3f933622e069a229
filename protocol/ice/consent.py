"""Consent freshness of the selected path (RFC 7675).

1. Valid STUN keeps consent: answers to our own checks, and for the lite agent also the peer's authenticated requests,
   since a lite agent need not send checks at all. Media never does, however well authenticated.
2. When it is due, `asks` says so once, at 5 s times a random factor of 0.8 to 1.2 (§5.1), with no repetition. The
   full agent asks at every interval; the lite agent only when no request came for that long.
3. After `late` seconds of silence consent is late; after `expired` seconds it is lost for good.
"""

from __future__ import annotations

import math

from protocol.wire import Entropy

__all__ = ["Consent"]

# Specification constants (RFC 7675 §5.1)
INTERVAL = 5.0
_SPREAD_LOW, _SPREAD_HIGH = 0.8, 1.2
EXPIRED = 30.0


class Consent:
    """The clock of one selected path. Does nothing until `start`."""

    __slots__ = ("_asked", "_entropy", "_expired", "_interval", "_late", "_mean", "_unprompted", "heard", "late")

    def __init__(
        self, *, entropy: Entropy, interval: float, late: float, expired: float = math.inf, unprompted: bool
    ) -> None:
        self._entropy = entropy
        self._mean = interval
        self._late = late
        self._expired = expired
        self._unprompted = unprompted  # ask also while the peer is heard
        self._interval = math.inf  # before `start`
        self._asked = -math.inf
        self.heard = -math.inf
        self.late = False

    def start(self, now: float) -> bool:
        """A path was selected, by valid STUN that came now; True if that ends a late spell."""
        self._asked = now
        self._draw()
        return self.hear(now)

    def hear(self, now: float) -> bool:
        """Valid STUN came on the selected path; True if that ends a late spell."""
        self.heard = now
        late, self.late = self.late, False
        return late

    def asks(self, now: float) -> bool:
        """True, once, when a consent check is due."""
        if now < self._ask_at():
            return False
        self._asked = now
        self._draw()
        return True

    def becomes_late(self, now: float) -> bool:
        """True, once, when the silence grew too long."""
        if self.late or self._interval == math.inf or now < self.heard + self._late:
            return False
        self.late = True
        return True

    def is_expired(self, now: float) -> bool:
        return self._interval != math.inf and now >= self.heard + self._expired

    def next_timeout(self) -> float:
        if self._interval == math.inf:
            return math.inf
        return min(self._ask_at(), self.heard + (self._expired if self.late else self._late))

    def stop(self) -> None:
        self._interval = math.inf

    def _ask_at(self) -> float:
        since = self._asked if self._unprompted or self._asked > self.heard else self.heard
        return since + self._interval

    def _draw(self) -> None:
        fraction = int.from_bytes(self._entropy(2), "big") / 65535
        self._interval = self._mean * (_SPREAD_LOW + (_SPREAD_HIGH - _SPREAD_LOW) * fraction)

"""What each API key has of calls now, and had in the last minute, against its limits. Each process counts for itself."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable

import trio

from transceiver.signalling.errors import SignallingError
from transceiver.signalling.permits import Permit

__all__ = ["Usage"]

# Implementation constants, in seconds
WINDOW = 60.0
RETRY_AFTER_CALLS = 5  # a call may end at any time


class Usage:
    """`check` before a call is made, `began` when it is, `ended` when it is over."""

    def __init__(self, clock: Callable[[], float] = trio.current_time) -> None:
        self.calls: Counter[str] = Counter()  # by the name of the key
        self._clock = clock
        self._recent: dict[str, deque[float]] = {}  # of keys that have a limit: no longer than it

    def check(self, permit: Permit) -> None:
        """Raises SignallingError: 429, and when to come again."""
        if permit.calls is not None and self.calls[permit.key] >= permit.calls:
            message = f"The API key has as many calls as it may have at once: {permit.calls}."
            raise SignallingError(429, "concurrent_calls_exceeded", message, retry_after=RETRY_AFTER_CALLS)
        recent = self._recent.get(permit.key)
        if permit.per_minute is None or recent is None or len(recent) < permit.per_minute:
            return
        wait = recent[-permit.per_minute] + WINDOW - self._clock()
        if wait > 0:
            message = f"The API key has placed as many calls in a minute as it may: {permit.per_minute}."
            raise SignallingError(429, "rate_limit_exceeded", message, retry_after=math.ceil(wait))

    def began(self, permit: Permit) -> None:
        self.calls[permit.key] += 1
        if permit.per_minute is None:
            self._recent.pop(permit.key, None)
            return
        recent = self._recent.get(permit.key)
        if recent is None or recent.maxlen != permit.per_minute:  # the file may have changed it
            recent = self._recent[permit.key] = deque(recent or (), maxlen=permit.per_minute)
        recent.append(self._clock())

    def ended(self, key: str) -> None:
        self.calls[key] -= 1
        if self.calls[key] <= 0:
            del self.calls[key]

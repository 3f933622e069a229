"""How long a link gathers frames before it writes them: not at all on a quiet line, longer the more of them come.

A message costs both ends nearly the same whatever its size, so that on a busy link fewer and larger ones are worth a delay
that nobody hears. The delay grows with the rate of frames, up to a bound that is reached at FULL_RATE.
"""

from __future__ import annotations

import math

__all__ = ["GatherPace"]

# Implementation constants
FULL_RATE = 5000.0  # frames per second (a hundred calls that speak): from there on the delay is the longest
MEMORY_SECONDS = 0.1  # over which the rate is averaged


class GatherPace:
    """`due` says when the next write may leave, at the soonest; in seconds, as all of it. Pure: the caller has the clock."""

    __slots__ = ("_counted_at", "_longest", "_rate", "due")

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._rate = 0.0
        self._counted_at = -math.inf
        self.due = -math.inf

    def count(self, frames: int, now: float) -> None:
        """A write leaves now, with so many frames."""
        passed = now - self._counted_at
        self._counted_at = now
        if passed > 0:
            weight = min(1.0, passed / MEMORY_SECONDS)
            self._rate += (frames / passed - self._rate) * weight
        self.due = now + self._longest * min(1.0, self._rate / FULL_RATE)

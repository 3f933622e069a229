"""Percentiles, by nearest rank: of a few values exactly, of very many in bounded memory."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence

__all__ = ["Histogram", "percentile"]


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least `share` (0 to 1) of all values do not exceed; None of no values."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


class Histogram:
    """Times in seconds, kept to a tenth of a millisecond; beyond two seconds only their number and the maximum are."""

    PER_SECOND = 10_000
    STEP = 1 / PER_SECOND
    BINS = 20_000

    def __init__(self) -> None:
        self.count = 0
        self.maximum = 0.0
        self._bins = array("Q", bytes(8 * (self.BINS + 1)))

    def add(self, value: float) -> None:
        self.count += 1
        if value > self.maximum:
            self.maximum = value
        index = int(value * self.PER_SECOND)
        self._bins[index if 0 <= index < self.BINS else (0 if index < 0 else self.BINS)] += 1

    def merge(self, other: Histogram) -> None:
        """As if every value of `other` had been added here."""
        self.fill(other.counts(), other.maximum)

    def counts(self) -> dict[int, int]:
        """Step → values, of the steps that have any: what goes to another process, with `maximum`."""
        return {index: count for index, count in enumerate(self._bins) if count}

    def fill(self, counts: Mapping[int, int], maximum: float) -> None:
        """What `counts` of another histogram told, added to what is here."""
        for index, count in counts.items():
            self._bins[min(max(0, index), self.BINS)] += count
            self.count += count
        self.maximum = max(self.maximum, maximum)

    def percentile(self, share: float) -> float | None:
        """As `percentile` above, rounded up to the next step, and never above the maximum."""
        rank = max(1, math.ceil(share * self.count))
        seen = 0
        for index, count in enumerate(self._bins):
            seen += count
            if seen >= rank:
                return min((index + 1) * self.STEP, self.maximum) if index < self.BINS else self.maximum
        return None

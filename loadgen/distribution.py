"""Percentiles, by nearest rank: of a few values exactly, of very many in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

__all__ = ["MANY", "Histogram", "percentile"]

# Implementation constants
MANY = 1024  # values that wait; each costs little more than its place in an array then


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least `share` (0 to 1) of all values do not exceed; None of no values."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


class Histogram:
    """Times in seconds: kept to a tenth of a millisecond up to two seconds, from there to half a percent up to ten minutes;
    beyond these only their number and the maximum are.

    `add` is for a value now and then. Who has one for every packet appends to `waiting`, and calls `gather` now and then: a
    thousand at once cost a tenth.
    """

    PER_SECOND = 10_000
    STEP = 1 / PER_SECOND
    EVEN = 20_000  # bins of one STEP; those after them grow
    FINENESS = 200  # of them, while times grow e-fold
    BINS = EVEN + math.ceil(FINENESS * math.log(600 * PER_SECOND / EVEN))

    def __init__(self) -> None:
        self.waiting: list[float] = []
        self._maximum = 0.0
        self._bins = np.zeros(self.BINS + 1, np.int64)

    @property
    def count(self) -> int:
        self.gather()
        return int(self._bins.sum())

    @property
    def maximum(self) -> float:
        self.gather()
        return self._maximum

    def add(self, value: float) -> None:
        self.waiting.append(value)
        self.gather(MANY)

    def gather(self, many: int = 1) -> None:
        """Sort the values in that wait, if they are many."""
        waiting = self.waiting
        if len(waiting) < many:
            return
        values = np.array(waiting)
        waiting.clear()  # its owners keep the list
        self._maximum = max(self._maximum, float(values.max()))
        places = values * self.PER_SECOND
        if places.max() >= self.EVEN:
            far = places >= self.EVEN
            places[far] = self.EVEN + self.FINENESS * np.log(places[far] / self.EVEN)
        self._bins += np.bincount(np.clip(places, 0, self.BINS).astype(np.int64), minlength=self.BINS + 1)

    def merge(self, other: Histogram) -> None:
        """As if every value of `other` had been added here."""
        self.fill(other.counts(), other.maximum)

    def counts(self) -> dict[int, int]:
        """Step → values, of the steps that have any: what goes to another process, with `maximum`."""
        self.gather()
        return {int(index): int(self._bins[index]) for index in np.flatnonzero(self._bins)}

    def fill(self, counts: Mapping[int, int], maximum: float) -> None:
        """What `counts` of another histogram told, added to what is here."""
        for index, count in counts.items():
            self._bins[min(max(0, index), self.BINS)] += count
        self._maximum = max(self._maximum, maximum)

    def percentile(self, share: float) -> float | None:
        """As `percentile` above, rounded up to the next step, and never above the maximum."""
        count = self.count
        if not count:
            return None
        index = int(np.searchsorted(self._bins.cumsum(), max(1, math.ceil(share * count))))
        if index >= self.BINS:
            return self._maximum
        end = index + 1 if index < self.EVEN else self.EVEN * math.exp((index + 1 - self.EVEN) / self.FINENESS)
        return min(end * self.STEP, self._maximum)

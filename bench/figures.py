"""Figures of interleaved rounds: medians, spreads, ratios. No clock and no process in here.

Times from a shared machine drift together, so a ratio is taken within each round, and the median of these ratios is the
one to quote: it is steadier than the ratio of two medians, and far steadier than any time.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

__all__ = ["Report", "Section", "Series", "Spread", "percentile", "ratio", "spread", "without_talk"]


class Spread(NamedTuple):
    median: float
    low: float
    high: float


class Series(msgspec.Struct, kw_only=True):
    """One subject under one load: a value for each round, in the order of the rounds."""

    what: str
    subject: str
    unit: str
    rounds: list[float]
    is_reference: bool = False


class Section(msgspec.Struct, kw_only=True):
    """What one sub-command measured. Within a `what`, every reference is compared with the subject that is none."""

    title: str
    series: list[Series] = msgspec.field(default_factory=list)
    notes: list[str] = msgspec.field(default_factory=list)

    def add(self, what: str, subject: str, unit: str, value: float, *, is_reference: bool = False) -> None:
        """One more round."""
        for series in self.series:
            if (series.what, series.subject) == (what, subject):
                series.rounds.append(value)
                return
        self.series.append(Series(what=what, subject=subject, unit=unit, rounds=[value], is_reference=is_reference))

    def note(self, text: str) -> None:
        """Once, however many rounds have it to say."""
        if text not in self.notes:
            self.notes.append(text)

    def ratio_to(self, reference: Series) -> Spread | None:
        """Of the subject that is no reference, to this one; None if there is no such subject."""
        for series in self.series:
            if series.what == reference.what and not series.is_reference:
                return ratio(series.rounds, reference.rounds)
        return None


class Report(msgspec.Struct, kw_only=True):
    command: str
    machine: dict[str, str | int | list[float]]
    seconds: float
    sections: list[Section]


def spread(values: Sequence[float]) -> Spread:
    """Raises ValueError of no values."""
    if not values:
        raise ValueError("no rounds")
    return Spread(statistics.median(values), min(values), max(values))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of them that so large a share (above 0, up to 1) does not exceed. Raises ValueError of no values."""
    if not values:
        raise ValueError("no values")
    return sorted(values)[math.ceil(share * len(values)) - 1]


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread | None:
    """Round by round; rounds that only one of them has are left out. None if nothing can be compared."""
    pairs = [own / other for own, other in zip(ours, theirs, strict=False) if other > 0]
    return spread(pairs) if pairs else None


def without_talk(short: tuple[float, float], long: tuple[float, float]) -> float:
    """Of two `(seconds of talk, cost)`: what it costs not to talk at all, if every second of talk costs the same."""
    (short_talk, short_cost), (long_talk, long_cost) = short, long
    per_second = (long_cost - short_cost) / (long_talk - short_talk)
    return short_cost - per_second * short_talk

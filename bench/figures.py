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

__all__ = ["Bar", "Report", "Section", "Series", "Spread", "Verdict", "percentile", "ratio", "spread"]


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
    own: list[float] = msgspec.field(default_factory=list)
    """The part of each round's value that is the process's own code, in the same unit; the rest is the kernel's work for it."""
    is_reference: bool = False


class Bar(msgspec.Struct, kw_only=True, frozen=True):
    """What a subject has to keep to: a share of a reference under the same load, or without one a value."""

    what: str
    subject: str
    reference: str | None
    limit: float
    unlike: str = ""
    """Why this run says nothing of the bar; empty when it is like the one that the bar is about."""


class Verdict(msgspec.Struct, kw_only=True, frozen=True):
    """`reached` is the ratio (or the value) that a bar is about."""

    bar: Bar
    reached: Spread
    met: bool | None
    """By the median; None when the run is unlike the one that the bar is about."""


class Section(msgspec.Struct, kw_only=True):
    """What one sub-command measured."""

    title: str
    series: list[Series] = msgspec.field(default_factory=list)
    bars: list[Bar] = msgspec.field(default_factory=list)
    notes: list[str] = msgspec.field(default_factory=list)

    def add(
        self,
        what: str,
        subject: str,
        unit: str,
        value: float,
        *,
        own: float | None = None,
        is_reference: bool = False,
    ) -> None:
        """One more round."""
        series = self.find(what, subject)
        if series is None:
            series = Series(what=what, subject=subject, unit=unit, rounds=[], is_reference=is_reference)
            self.series.append(series)
        series.rounds.append(value)
        if own is not None:
            series.own.append(own)

    def hold(self, what: str, subject: str, limit: float, *, to: str | None = None, unlike: str = "") -> None:
        """A bar: at most `limit`, times what the reference `to` has; not judged if the run is `unlike` that of the bar."""
        self.bars.append(Bar(what=what, subject=subject, reference=to, limit=limit, unlike=unlike))

    def judge_nothing(self, why: str) -> None:
        """Of all bars that there are by now."""
        self.bars = [msgspec.structs.replace(bar, unlike=why) for bar in self.bars]

    def note(self, text: str) -> None:
        """Once, however many rounds have it to say."""
        if text not in self.notes:
            self.notes.append(text)

    def find(self, what: str, subject: str) -> Series | None:
        return next((series for series in self.series if (series.what, series.subject) == (what, subject)), None)

    def ratio_to(self, reference: Series) -> Spread | None:
        """Of the first subject under the same load that is no reference; None if there is no such subject."""
        for series in self.series:
            if series.what == reference.what and not series.is_reference:
                return ratio(series.rounds, reference.rounds)
        return None

    def verdict(self, bar: Bar) -> Verdict | None:
        """None when one of the two was not measured."""
        subject = self.find(bar.what, bar.subject)
        reference = None if bar.reference is None else self.find(bar.what, bar.reference)
        if subject is None or (reference is None) is not (bar.reference is None):
            return None
        reached = spread(subject.rounds) if reference is None else ratio(subject.rounds, reference.rounds)
        if reached is None:
            return None
        return Verdict(bar=bar, reached=reached, met=None if bar.unlike else reached.median <= bar.limit)

    def verdicts(self) -> list[Verdict]:
        return [verdict for bar in self.bars if (verdict := self.verdict(bar)) is not None]


class Report(msgspec.Struct, kw_only=True):
    command: str
    machine: dict[str, str | int | list[float]]
    seconds: float
    sections: list[Section]
    verdicts: list[Verdict] = msgspec.field(default_factory=list)
    """Of all sections; for whoever reads the file."""


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

"""What the processes cost while all calls talked, whether their memory stayed flat, and how many calls they could carry.

All from samples of the run, one a second. The plateau is where nearly as many calls talked as ever did: what happens there
is the price of calls, not of setting them up.

Memory is flat when the straight line through a process's memory on the plateau, its first part left out (caches fill,
buffers find their size), rises by no more than GROWTH of it, or by SMALL.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from loadgen.timeline import Sample

__all__ = ["CORE", "Capacity", "find_capacity", "process_figures"]

# Implementation constants
PLATEAU = 0.98  # of the most calls that talked at once
UPPER_HALF = 0.5
SETTLING = 0.2  # of the plateau, left out before memory is judged
ENOUGH = 8  # samples, or nothing is said of memory
GROWTH = 0.03
SMALL = 1 << 20  # bytes
WINDOW = 5.0  # seconds over which a limit must be reached, twice in a row
IN_TIME = 0.99  # share of the frames that must come back within 200 ms
CORE = 0.95  # of one core that a process may use
SENT_LATE = 0.2  # share of the frames that the generator sent 5 ms late, or never: a few say little about the stack
MIB = 1 << 20


class Capacity(NamedTuple):
    calls: int
    """That talked when all was still well."""
    reason: str
    """What ended it."""


def process_figures(samples: Sequence[Sample], *, ramp: bool = False) -> dict[str, dict[str, Any]]:
    """By process: CPU for each second of a call, share of a core, memory in MiB, how much the straight line through it rises
    and whether that is flat (None: too short to say). Of a `ramp`, where each call makes memory grow, the
    half with the most calls counts, and nothing is said of memory."""
    most = max((sample.talking for sample in samples), default=0)
    level = [sample for sample in samples if most and sample.talking >= (UPPER_HALF if ramp else PLATEAU) * most]
    if len(level) < 2:
        return {}
    first, last = level[0], level[-1]
    # At either end some may be missing: the last sample is from after the end of the generator's own processes.
    seen = Counter(name for sample in level for name in sample.processes)
    names = [name for name in dict.fromkeys([*first.processes, *last.processes]) if seen[name] > 1]
    return {name: _figures(name, level, ENOUGH if not ramp else math.inf) for name in names}


def _figures(name: str, level: Sequence[Sample], enough: float) -> dict[str, Any]:
    level = [sample for sample in level if name in sample.processes]
    first, last = level[0], level[-1]
    cpu = last.processes[name].cpu - first.processes[name].cpu
    seconds = last.at - first.at
    spoken = _spoken(level)
    judged = [(sample.at, sample.processes[name].resident) for sample in level]
    residents = [resident for _, resident in judged]
    judged = judged[int(SETTLING * len(judged)) :]
    slope = _slope(judged) if len(judged) >= enough else None
    rise = None if slope is None else slope * (judged[-1][0] - judged[0][0])
    return {
        "cpu_ms_per_call_second": round(cpu * 1000 / spoken, 4) if spoken else None,
        "share_of_a_core": round(cpu / seconds, 3) if seconds else None,
        "resident_mib": {
            "first": round(residents[0] / MIB, 2),
            "last": round(residents[-1] / MIB, 2),
            "max": round(max(residents) / MIB, 2),
        },
        "rise_mib": None if rise is None else round(rise / MIB, 2),
        "flat": None if rise is None else rise <= max(SMALL, GROWTH * judged[0][1]),
    }


def _spoken(level: Sequence[Sample]) -> float:
    """Seconds of all calls together."""
    return sum((after.at - before.at) * before.talking for before, after in pairwise(level))


def _slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the line with the least squares."""
    middle_x = sum(x for x, _ in points) / len(points)
    middle_y = sum(y for _, y in points) / len(points)
    spread = sum((x - middle_x) ** 2 for x, _ in points)
    return sum((x - middle_x) * (y - middle_y) for x, y in points) / spread if spread else 0.0


def find_capacity(samples: Sequence[Sample]) -> Capacity | None:
    """When the newest two windows of a run in which ever more calls come both show a limit: at how many calls the first of
    them began, and what the limit was. The generator's own counts, too: beyond it nothing can be said of the stack."""
    if not samples:
        return None
    middle = samples[-1].at - WINDOW
    if not _limits(_window(samples, samples[-1].at)):
        return None
    window = _window(samples, middle)
    reasons = _limits(window)
    return Capacity(window[0].talking, ", ".join(reasons)) if reasons else None


def _window(samples: Sequence[Sample], end: float) -> Sequence[Sample]:
    return [sample for sample in samples if end - WINDOW <= sample.at <= end]


def _limits(window: Sequence[Sample]) -> list[str]:
    """What was at its limit between the first and the last of these samples."""
    if len(window) < 2 or window[-1].at - window[0].at < WINDOW * 0.8 or not window[0].talking:
        return []
    before, after = window[0], window[-1]
    reasons = []
    sent, received, late = (getattr(after, name) - getattr(before, name) for name in ("sent", "received", "late"))
    if after.sent_late - before.sent_late > SENT_LATE * sent:
        reasons.append("the generator sent late")
    if sent and received - late < IN_TIME * sent:
        reasons.append(f"only {max(0, received - late) / sent:.1%} of the frames were back in time")
    for name, process in after.processes.items():
        if name in before.processes:
            share = (process.cpu - before.processes[name].cpu) / (after.at - before.at)
            if share > CORE:
                reasons.append(f"{name} used {share:.0%} of a core")
    if after.failed > before.failed:
        reasons.append(f"{after.failed - before.failed} calls failed")
    return reasons

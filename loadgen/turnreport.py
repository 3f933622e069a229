"""The part of a report that is about conversations: figures for programs, rows for the tables, sentences to read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.table import Table

from loadgen.distribution import Histogram
from loadgen.phrases import say
from loadgen.turns import HONOURED_WITHIN, LATENCIES, TurnFigures

__all__ = [
    "summarize_turns",
    "turn_counts",
    "turn_sentences",
    "turn_tables",
    "turn_times",
    "turn_verdict",
    "turns_are_well",
]

_SHARES = {"p50": 0.50, "p95": 0.95, "p99": 0.99, "max": 1.0}

TURN_NAMES = {
    "hearing": "turn: end of speech → speech_stopped",
    "deciding": "→ response.created",
    "speaking": "→ first frame of the answer",
    "silence": "→ first frame that is not silence",
    "answer": "turn: end of speech → first sound",
    "silenced": "interruption: → last frame of the answer",
    "cleared": "interruption: → buffer cleared",
}
"""As the tables say them, in their order."""


def summarize_turns(turns: TurnFigures) -> dict[str, Any]:
    """Milliseconds where the name says `ms`."""
    return {
        "asked": turns.asked,
        "completed": turns.completed,
        "interrupted": turns.interrupted,
        "failed": sum(turns.failed.values()),
        "failures": _by_count(turns.failed),
        "latency_ms": {name: _spread(getattr(turns, name)) for name in LATENCIES},
        "functions_answered": turns.functions,
        "unasked_responses": turns.unasked,
        "heard": _by_count(turns.heard),
        "unreadable_messages": turns.unread,
        "interruptions": {
            "made": turns.interruptions,
            "honoured": turns.honoured,
            "over_before": turns.over_before,
            "honoured_within_ms": HONOURED_WITHIN * 1000,
            "cleared_ms": _spread(turns.cleared),
            "silenced_ms": _spread(turns.silenced),
        },
    }


def turns_are_well(turns: dict[str, Any]) -> bool:
    """Also if there was no conversation."""
    return not turns or (turns["asked"] > 0 and not turns["failed"])


def turn_times(turns: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """By the names of the tables."""
    spreads = turns["latency_ms"] | {name: turns["interruptions"][f"{name}_ms"] for name in ("cleared", "silenced")}
    return {said: spreads[name] for name, said in TURN_NAMES.items() if spreads[name]["max"] is not None}


def turn_counts(turns: dict[str, Any]) -> Sequence[tuple[str, int]]:
    made = turns["interruptions"]
    return [
        *((name, turns[name]) for name in ("asked", "completed", "interrupted", "failed")),
        ("functions answered", turns["functions_answered"]),
        ("interruptions", made["made"]),
        ("honoured", made["honoured"]),
    ]


def turn_tables(times: Table, turns: dict[str, Any]) -> tuple[Table, Table]:
    """`times` with the rows of turns, and a table of their own."""
    for name, spread in turn_times(turns).items():
        times.add_row(name, *map(say, spread.values()))
    table = Table("", "", show_header=False, title="turns", title_justify="left", title_style="bold")
    for name, count in turn_counts(turns):
        table.add_row(name, str(count))
    return times, table


def turn_verdict(ok: bool, calls: dict[str, Any], turns: dict[str, Any], seconds: float) -> tuple[str, str]:
    """The last sentence."""
    return (
        "well" if ok else "bad",
        f"{'well' if ok else 'not well'}: {calls['wanted']} call{'s' * (calls['wanted'] != 1)}, {calls['failed']} failed; "
        f"{turns['asked']} turn{'s' * (turns['asked'] != 1)}, {turns['failed']} failed, in {seconds:.1f} s",
    )


def turn_sentences(turns: dict[str, Any]) -> Iterable[tuple[str, str]]:
    """As in `report.sentences`."""
    made = turns["interruptions"]
    answer = turns["latency_ms"]["answer"]
    if answer["max"] is not None:
        yield (
            "",
            f"an answer was to be heard {answer['p50']} ms (p50), {answer['p99']} ms (p99) after the end of the sentence",
        )
    if made["made"]:
        counted = made["made"] - made["over_before"]
        silenced = made["silenced_ms"]
        text = f"{made['honoured']} of {counted} interruptions honoured within {made['honoured_within_ms']:.0f} ms"
        if silenced["max"] is not None:
            text += f"; silent after {silenced['p50']} ms (p50), {silenced['p99']} ms (p99)"
        if made["over_before"]:
            text += f"; {made['over_before']} more came when the answer was at its end"
        yield "" if made["honoured"] == counted else "bad", text
    if words := [(said, count) for said, count in turns["heard"].items() if said]:
        yield "", "heard: " + ", ".join(f"{count} × {said!r}" for said, count in words[:6])
    for reason, count in turns["failures"].items():
        yield "bad", f"turns failed: {count} × {reason}"
    if not turns["asked"]:
        yield "bad", "no turn was begun: were the calls too short?"


def _by_count(counts: dict[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _spread(histogram: Histogram) -> dict[str, float | None]:
    found = {name: histogram.percentile(share) for name, share in _SHARES.items()}
    return {name: None if value is None else round(value * 1000, 1) for name, value in found.items()}

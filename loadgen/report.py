"""The result of a run: figures from the calls, a verdict, a table to read and JSON for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import msgspec
from rich.console import RenderableType
from rich.table import Table

from loadgen.call import STAGES, Call
from loadgen.distribution import Histogram, percentile
from loadgen.scenario import Run
from protocol.srtp import SrtpProfile

__all__ = ["Summary", "render", "summarize"]

_SHARES = {"p50": 0.50, "p95": 0.95, "p99": 0.99, "max": 1.0}


class Summary(msgspec.Struct, kw_only=True):
    """Times are in milliseconds where the name says `ms`; a time of nothing is null."""

    ok: bool
    calls: dict[str, Any]
    seconds: float
    setup_ms: dict[str, dict[str, float | None]]
    audio: dict[str, Any]
    data: dict[str, Any]
    generator: dict[str, Any]
    security: dict[str, int]
    """SRTP profile and cipher suite → calls."""
    each: list[dict[str, Any]]


def summarize(run: Run) -> Summary:
    calls = run.calls
    audio = {
        name: sum(getattr(call.audio, name) for call in calls)
        for name in ("sent", "received", "early", "late", "duplicated", "corrupt", "foreign", "held")
    }
    audio["lost"] = sum(call.audio.missing for call in calls)
    data = {
        name: sum(getattr(call.data, name) for call in calls) for name in ("sent", "received", "refused", "corrupt")
    }
    data["lost"] = sum(len(call.data.pending) for call in calls)
    gaps = [call.audio.longest_gap * 1000 for call in calls if call.audio.received]
    silences = [call.audio.longest_silence * 1000 for call in calls if call.audio.received]
    failures = Counter(call.failure for call in calls if call.failure is not None)
    failed = failures.total() + run.options.calls - len(calls)
    return Summary(
        ok=_judge(failed, audio, data, run.options.allow_loss),
        calls={
            "wanted": run.options.calls,
            "succeeded": run.options.calls - failed,
            "failed": failed,
            "failures": dict(failures.most_common()),
            "not_placed": run.options.calls - len(calls),
            "goodbyes": sum(call.ended and call.hung_up for call in calls),
        },
        seconds=round(run.seconds, 3),
        setup_ms=_setup(calls),
        audio=audio
        | {
            "round_trip_ms": _spread(run.figures.frame_round_trips),
            "longest_gap_ms": {"p50": _rounded(percentile(gaps, 0.5)), "max": _rounded(max(gaps, default=None))},
            "longest_silence_ms": {
                "p50": _rounded(percentile(silences, 0.5)),
                "max": _rounded(max(silences, default=None)),
            },
        },
        data=data | {"round_trip_ms": _spread(run.figures.message_round_trips)},
        generator={
            "frames_sent_late": sum(call.audio.sent_late for call in calls),
            "frames_skipped": sum(call.audio.skipped for call in calls),
            "worst_lateness_ms": _rounded(run.driver.worst_lateness * 1000),
            "datagrams_sent": run.driver.datagrams_sent,
            "datagrams_received": run.driver.datagrams_received,
            "socket_errors": dict(run.driver.socket_errors),
        },
        security=dict(Counter(_security(call) for call in calls if call.cipher_suite is not None)),
        each=[_one(call) for call in calls],
    )


def _judge(failed: int, audio: dict[str, int], data: dict[str, int], allow_loss: bool) -> bool:
    wrong = failed + audio["duplicated"] + audio["corrupt"] + audio["foreign"] + data["corrupt"]
    return wrong == 0 and (allow_loss or audio["lost"] + data["lost"] == 0)


def _setup(calls: list[Call]) -> dict[str, dict[str, float | None]]:
    times: dict[str, list[float]] = {
        stage: [call.reached[stage] - call.reached[since] for call in calls if stage in call.reached]
        for stage, since in STAGES.items()
    }
    times["all"] = [max(call.reached.values()) - call.reached["start"] for call in calls if call.is_ready]
    return {stage: _spread_of(partial(percentile, found)) for stage, found in times.items()}


def _one(call: Call) -> dict[str, Any]:
    audio = call.audio
    return {
        "call": call.number,
        "failure": call.failure,
        "sent": audio.sent,
        "received": audio.received,
        "early": audio.early,
        "lost": audio.missing,
        "longest_gap_ms": _rounded(audio.longest_gap * 1000),
        "messages_lost": len(call.data.pending),
    }


def _spread(histogram: Histogram) -> dict[str, float | None]:
    return _spread_of(histogram.percentile)


def _spread_of(of: Callable[[float], float | None]) -> dict[str, float | None]:
    found = {name: of(share) for name, share in _SHARES.items()}
    return {name: None if value is None else _rounded(value * 1000) for name, value in found.items()}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _security(call: Call) -> str:
    return f"{SrtpProfile(call.srtp_profile or 0).name}, {call.cipher_suite}"


# To read


def render(summary: Summary) -> list[RenderableType]:
    times = Table(title="milliseconds", title_justify="left", title_style="bold")
    times.add_column("")
    for name in _SHARES:
        times.add_column(name, justify="right")
    for stage, spread in summary.setup_ms.items():
        times.add_row(_STAGE_NAMES.get(stage, stage), *map(_text, spread.values()), end_section=stage == "all")
    times.add_row("audio there and back", *map(_text, summary.audio["round_trip_ms"].values()))
    times.add_row("data there and back", *map(_text, summary.data["round_trip_ms"].values()))
    gap = summary.audio["longest_gap_ms"]
    times.add_row("longest gap of a call", _text(gap["p50"]), "", "", _text(gap["max"]))

    counts = Table(title="counts", title_justify="left", title_style="bold")
    counts.add_column("")
    counts.add_column("audio frames", justify="right")
    counts.add_column("data messages", justify="right")
    for name in ("sent", "received", "early", "lost", "late", "duplicated", "foreign", "corrupt"):
        counts.add_row(name, _text(summary.audio[name]), _text(summary.data.get(name)))
    return [times, counts, *_sentences(summary)]


_STAGE_NAMES = {
    "signalling": "set-up: signalling",
    "ice": "set-up: ICE",
    "dtls": "set-up: DTLS",
    "channel": "set-up: data channel, after DTLS",
    "audio": "set-up: first audio, after DTLS",
    "all": "set-up: all",
}


def _sentences(summary: Summary) -> Iterable[str]:
    calls, generator = summary.calls, summary.generator
    for kinds, count in summary.security.items():
        yield f"{_calls(count)} with {kinds}"
    late, skipped = generator["frames_sent_late"], generator["frames_skipped"]
    if late or skipped:
        worst = f"at worst {generator['worst_lateness_ms']} ms"
        yield f"[yellow]of our own making: {late} frames left more than 5 ms late ({worst}), {skipped} never left[/]"
    if generator["socket_errors"]:
        yield f"[yellow]the system refused datagrams: {generator['socket_errors']}[/]"
    if summary.audio["held"]:
        yield f"[yellow]{summary.audio['held']} frames were held back without the server's consent[/]"
    for reason, count in calls["failures"].items():
        yield f"[red]failed: {count} × {reason}[/]"
    verdict = "[bold green]well[/]" if summary.ok else "[bold red]not well[/]"
    yield (
        f"{verdict}: {_calls(calls['wanted'])}, {calls['failed']} failed, {summary.audio['lost']} frames and "
        f"{summary.data['lost']} messages lost, in {summary.seconds:.1f} s"
    )


def _calls(count: int) -> str:
    return "1 call" if count == 1 else f"{count} calls"


def _text(value: float | None) -> str:
    return "–" if value is None else str(value)

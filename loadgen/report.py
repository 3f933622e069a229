"""The result of a run: figures from the calls, a verdict, a table to read and JSON for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import fields
from functools import partial
from typing import Any

import msgspec
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from loadgen.call import STAGES, Call
from loadgen.distribution import Histogram, percentile
from loadgen.scenario import Run
from protocol.srtp import SrtpProfile
from udpio.shaper import Conditions

__all__ = ["STAGE_NAMES", "Summary", "render", "sentences", "summarize"]

# Implementation constants: beyond these the generator was what was measured, not the stack
LIMIT_LATE = 0.01  # share of the frames that left more than 5 ms late, or never
LIMIT_LATENESS = 0.1  # seconds, of one frame
LIMIT_ARRIVAL = 0.1  # seconds that a call in a hundred began late
LIMIT_CPU = 0.9  # of the one core that it can use

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
    network: dict[str, Any]
    """What the run itself put between calls and server."""
    security: dict[str, int]
    """SRTP profile and cipher suite → calls."""
    curves: dict[str, dict[str, list[float | None]]]
    """Percentiles 0 to 100, in milliseconds: by stage of `setup`, and of audio and data `round_trip`."""
    each: list[dict[str, Any]]


def summarize(run: Run) -> Summary:
    calls = run.calls
    audio = {
        name: sum(getattr(call.audio, name) for call in calls)
        for name in ("sent", "received", "early", "late", "duplicated", "corrupt", "foreign", "held")
    }
    audio["lost"] = sum(call.audio.missing for call in calls)
    due = audio["sent"] - audio["early"]
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
            "on_schedule": _share(audio["received"] - audio["late"], due),
            "round_trip_ms": _spread(run.figures.frame_round_trips),
            "longest_gap_ms": {"p50": _rounded(percentile(gaps, 0.5)), "max": _rounded(max(gaps, default=None))},
            "longest_silence_ms": {
                "p50": _rounded(percentile(silences, 0.5)),
                "max": _rounded(max(silences, default=None)),
            },
        },
        data=data | {"round_trip_ms": _spread(run.figures.message_round_trips)},
        generator=_generator(run, audio["sent"]),
        network=_network(run),
        security=dict(Counter(_security(call) for call in calls if call.cipher_suite is not None)),
        curves={
            "setup": {
                stage: _curve(partial(percentile, sorted(found))) for stage, found in _setup_times(calls).items()
            },
            "round_trip": {
                "audio": _curve(run.figures.frame_round_trips.percentile),
                "data": _curve(run.figures.message_round_trips.percentile),
            },
        },
        each=[_one(call) for call in calls],
    )


def _generator(run: Run, sent: int) -> dict[str, Any]:
    """What was our own doing: figures of a stack that was driven badly say little about it."""
    driver = run.driver
    late = sum(call.audio.sent_late for call in run.calls)
    skipped = sum(call.audio.skipped for call in run.calls)
    arrival = run.arrival_lateness.percentile(0.99)
    cpu = max(0.0, run.cpu_seconds) / run.seconds if run.seconds else 0.0
    limits = {
        "frames late": late + skipped > LIMIT_LATE * (sent + skipped),
        "one frame very late": driver.worst_lateness > LIMIT_LATENESS,
        "calls late": arrival is not None and arrival > LIMIT_ARRIVAL,
        "no CPU left": cpu > LIMIT_CPU,
    }
    return {
        "limit": [name for name, reached in limits.items() if reached],
        "frames_sent_late": late,
        "frames_skipped": skipped,
        "sent_on_schedule": _share(sent - late, sent + skipped),
        "worst_lateness_ms": _rounded(driver.worst_lateness * 1000),
        "call_lateness_p99_ms": None if arrival is None else _rounded(arrival * 1000),
        "cpu_share_of_a_core": round(cpu, 3),
        "datagrams_sent": driver.datagrams_sent,
        "datagrams_received": driver.datagrams_received,
        "socket_errors": dict(driver.socket_errors),
    }


def _network(run: Run) -> dict[str, Any]:
    driver, network = run.driver, run.options.network
    default = Conditions()
    return {
        "conditions": {
            field.name: getattr(network.conditions, field.name)
            for field in fields(Conditions)
            if getattr(network.conditions, field.name) != getattr(default, field.name)
        },
        "seed": network.seed,
        "dropped": dict(driver.network_drops),
        "rebindings": driver.rebindings,
        "heard_again_after_ms": _spread(driver.rebind_recovery),
    }


def _judge(failed: int, audio: dict[str, int], data: dict[str, int], allow_loss: bool) -> bool:
    wrong = failed + audio["duplicated"] + audio["corrupt"] + audio["foreign"] + data["corrupt"]
    return wrong == 0 and (allow_loss or audio["lost"] + data["lost"] == 0)


def _setup(calls: list[Call]) -> dict[str, dict[str, float | None]]:
    return {stage: _spread_of(partial(percentile, found)) for stage, found in _setup_times(calls).items()}


def _setup_times(calls: list[Call]) -> dict[str, list[float]]:
    times = {
        stage: [call.reached[stage] - call.reached[since] for call in calls if stage in call.reached]
        for stage, since in STAGES.items()
    }
    return times | {"all": [max(call.reached.values()) - call.reached["start"] for call in calls if call.is_ready]}


def _curve(of: Callable[[float], float | None]) -> list[float | None]:
    return [None if (value := of(percent / 100)) is None else _rounded(value * 1000) for percent in range(101)]


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None


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
        times.add_row(STAGE_NAMES.get(stage, stage), *map(_text, spread.values()), end_section=stage == "all")
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
    styles = {"": "{}", "warn": "[yellow]{}[/]", "bad": "[red]{}[/]", "well": "[bold green]{}[/]"}
    return [times, counts, *(styles[tone].format(escape(text)) for tone, text in sentences(summary))]


STAGE_NAMES = {
    "signalling": "set-up: signalling",
    "ice": "set-up: ICE",
    "dtls": "set-up: DTLS",
    "channel": "set-up: data channel, after DTLS",
    "audio": "set-up: first audio, after DTLS",
    "all": "set-up: all",
}


def sentences(summary: Summary) -> Iterable[tuple[str, str]]:
    """What is worth saying, each with its tone: "", warn, bad or well; the verdict last."""
    calls, audio, generator, network = summary.calls, summary.audio, summary.generator, summary.network
    for kinds, count in summary.security.items():
        yield "", f"{_count(count, 'call')} with {kinds}"
    if (share := audio["on_schedule"]) is not None:
        yield "", f"{share:.2%} of the frames were back on schedule"
    if network["conditions"] or network["rebindings"]:
        said = ", ".join(f"{name} {value:g}" for name, value in network["conditions"].items()) or "nothing lost"
        dropped = ", ".join(f"{count} {reason}" for reason, count in network["dropped"].items()) or "nothing"
        yield "", f"a bad network between (seed {network['seed']}): {said}; dropped: {dropped}"
    if network["rebindings"]:
        median, worst = (_text(network["heard_again_after_ms"][share]) for share in ("p50", "max"))
        rebindings = _count(network["rebindings"], "rebinding")
        yield "", f"{rebindings}; heard again after {median} ms (p50), {worst} ms (max)"
    late, skipped = generator["frames_sent_late"], generator["frames_skipped"]
    if late or skipped:
        worst = f"at worst {generator['worst_lateness_ms']} ms"
        left = _count(late, "frame")
        yield "warn", f"of our own making: {left} left more than 5 ms late ({worst}), {skipped} never left"
    if generator["limit"]:
        why = ", ".join(generator["limit"])
        yield "bad", f"the generator was the limit ({why}): these figures are its own, not the stack's"
    if generator["socket_errors"]:
        yield "warn", f"the system refused datagrams: {generator['socket_errors']}"
    if audio["held"]:
        yield "warn", f"{audio['held']} frames were held back without the server's consent"
    for reason, count in calls["failures"].items():
        yield "bad", f"failed: {count} × {reason}"
    yield (
        "well" if summary.ok else "bad",
        f"{'well' if summary.ok else 'not well'}: {_count(calls['wanted'], 'call')}, {calls['failed']} failed, {audio['lost']} "
        f"frames and {summary.data['lost']} messages lost, in {summary.seconds:.1f} s",
    )


def _count(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _text(value: float | None) -> str:
    return "–" if value is None else str(value)

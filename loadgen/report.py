"""The result of a run: figures from the calls, a verdict, a table to read and JSON for programs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import fields
from functools import partial
from typing import Any

import msgspec
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from loadgen.distribution import Histogram, percentile
from loadgen.driver import TICK_SECONDS
from loadgen.endurance import CORE, Capacity
from loadgen.options import Options
from loadgen.phrases import describe_failure, describe_limit, describe_network, say, total_by_kind
from loadgen.result import AUDIO_COUNTS, CallResult, Result, collect
from loadgen.scenario import Run
from loadgen.stages import CONVERSATION_STAGES, ECHO_STAGES, STAGE_NAMES, STAGES
from loadgen.turnreport import summarize_turns, turn_sentences, turn_tables, turn_verdict, turns_are_well
from loadgen.turns import LATENCIES
from loadgen.words import SLOT_COUNTS
from udpio.shaper import Conditions

__all__ = ["Summary", "render", "sentences", "summarize", "summarize_result"]

# Implementation constants: beyond these the generator was what was measured, not the stack
LIMIT_LATE = 0.01  # share of the frames that left more than 5 ms late, or never
LIMIT_LATENESS = 0.1  # seconds, of one frame
LIMIT_ARRIVAL = 0.1  # seconds that a call in a hundred began late
LIMIT_READING = 0.010  # seconds that a datagram in a hundred waited in our sockets
LIMIT_CPU = 0.9  # of the one core that a process can use

GENERATOR = "generator"  # the name of its first process; others have a number behind it

_SHARES = {"p50": 0.50, "p95": 0.95, "p99": 0.99, "max": 1.0}


class Summary(msgspec.Struct, kw_only=True):
    """Times are in milliseconds where the name says `ms`; a time of nothing is null."""

    ok: bool
    calls: dict[str, Any]
    seconds: float
    setup_ms: dict[str, dict[str, float | None]]
    audio: dict[str, Any]
    data: dict[str, Any]
    agent: dict[str, Any]
    """The agent's view of our audio, if it was asked: slots of 20 ms, and which of them were filled in time."""
    processes: dict[str, dict[str, Any]]
    """Of our own stack and of the generator, while all calls talked: see `loadgen.endurance`."""
    capacity: dict[str, Any]
    """If it was looked for: calls, and what was at its limit."""
    turns: dict[str, Any]
    """Of conversations: see `loadgen.turnreport`."""
    generator: dict[str, Any]
    network: dict[str, Any]
    """What the run itself put between calls and server."""
    security: dict[str, int]
    """SRTP profile and cipher suite → calls."""
    curves: dict[str, dict[str, list[float | None]]]
    """Percentiles 0 to 100, in milliseconds: by stage of `setup`, of audio and data `round_trip`, and of `turns`."""
    each: list[dict[str, Any]]

    @property
    def has_figures(self) -> bool:
        """Whether any call came so far that something was measured."""
        return any(spread["max"] is not None for spread in self.setup_ms.values())


def summarize(run: Run) -> Summary:
    """Of a run in this process."""
    return summarize_result(collect(run), run.options)


def summarize_result(
    result: Result,
    options: Options,
    processes: dict[str, dict[str, Any]] | None = None,
    capacity: Capacity | None = None,
) -> Summary:
    """`processes` as from `loadgen.endurance.process_figures`."""
    processes = processes or {}
    calls = result.calls
    audio = {name: sum(call.audio.get(name, 0) for call in calls) for name in (*AUDIO_COUNTS, "lost")}
    due = audio["sent"] - audio["early"] if not options.conversation else 0
    turns = summarize_turns(result.turns) if options.conversation else {}
    data = {
        name: sum(call.data.get(name, 0) for call in calls)
        for name in ("sent", "received", "refused", "corrupt", "lost")
    }
    heard = [call for call in calls if call.audio.get("received")]
    gaps = [call.longest_gap * 1000 for call in heard]
    silences = [call.longest_silence * 1000 for call in heard]
    failures = Counter(call.failure for call in calls if call.failure is not None)
    if options.find_capacity:  # they were ended by us
        del failures["interrupted"]
    not_placed = 0 if options.find_capacity else options.calls - len(calls)
    failed = failures.total() + not_placed
    wanted = len(calls) + not_placed
    flat = not options.soak or all(figures["flat"] is not False for figures in processes.values())
    seconds = max((process.seconds for process in result.processes), default=0.0)
    return Summary(
        ok=_judge(failed, audio, data, options.allow_loss or options.find_capacity) and flat and turns_are_well(turns),
        calls={
            "wanted": wanted,
            "succeeded": wanted - failed,
            "failed": failed,
            "failures": dict(failures.most_common()),
            "not_placed": not_placed,
            "goodbyes": sum(call.goodbye for call in calls),
        },
        seconds=round(seconds, 3),
        setup_ms=_setup(calls),
        audio=audio
        | {
            "on_schedule": _share(audio["received"] - audio["late"], due),
            "late_permille": _permille(audio["late"], due),
            "lost_permille": _permille(audio["lost"], due),
            "round_trip_ms": _spread(result.frame_round_trips),
            "longest_gap_ms": {"p50": _rounded(percentile(gaps, 0.5)), "max": _rounded(max(gaps, default=None))},
            "longest_silence_ms": {
                "p50": _rounded(percentile(silences, 0.5)),
                "max": _rounded(max(silences, default=None)),
            },
        },
        data=data | {"round_trip_ms": _spread(result.message_round_trips)},
        agent=_agent(calls),
        processes=processes,
        turns=turns,
        capacity={} if capacity is None else capacity._asdict(),
        generator=_generator(result, audio, seconds),
        network=_network(result, options),
        security=dict(Counter(call.security for call in calls if call.security is not None)),
        curves={
            "setup": {
                stage: _curve(partial(percentile, sorted(found))) for stage, found in _setup_times(calls).items()
            },
            "round_trip": {
                "audio": _curve(result.frame_round_trips.percentile),
                "data": _curve(result.message_round_trips.percentile),
            },
            "turns": {name: _curve(getattr(result.turns, name).percentile) for name in LATENCIES},
        },
        each=[_one(call) for call in calls],
    )


def _agent(calls: list[CallResult]) -> dict[str, Any]:
    told = [call.slots for call in calls if call.slots is not None]
    counts = {name: sum(slots.get(name, 0) for slots in told) for name in SLOT_COUNTS}
    if not counts["expected"]:
        return {}
    missing = counts["expected"] - counts["in_time"] - counts["late"]
    return counts | {
        "calls": len(told),
        "missing": missing,
        "filled_in_time": _share(counts["in_time"], counts["expected"]),
    }


def _generator(result: Result, audio: dict[str, int], seconds: float) -> dict[str, Any]:
    """What was our own doing: figures of a stack that was driven badly say little about it."""
    sent, late, skipped = audio["sent"], audio["sent_late"], audio["skipped"]
    processes = result.processes
    worst = max((process.worst_lateness for process in processes), default=0.0)
    arrival = result.arrival_lateness.percentile(0.99)
    reading = result.receive_delay.percentile(0.99)
    shares = [process.cpu_seconds / process.seconds for process in processes if process.seconds]
    errors: Counter[str] = Counter()
    for process in processes:
        errors.update(process.socket_errors)
    limits = {
        "frames late": late + skipped > LIMIT_LATE * (sent + skipped),
        "one frame very late": worst > LIMIT_LATENESS,
        "calls late": arrival is not None and arrival > LIMIT_ARRIVAL,
        "read late": reading is not None and reading > LIMIT_READING,
        "no CPU left": max(shares, default=0.0) > LIMIT_CPU,
        "a process died": any(process.died is not None for process in processes),
    }
    return {
        "limit": [name for name, reached in limits.items() if reached],
        "frames_sent_late": late,
        "frames_skipped": skipped,
        "sent_on_schedule": _share(sent - late, sent + skipped),
        "worst_lateness_ms": _rounded(worst * 1000),
        "send_lateness_ms": _spread(result.send_lateness),
        "receive_delay_ms": _spread(result.receive_delay),
        "call_lateness_p99_ms": None if arrival is None else _rounded(arrival * 1000),
        "processes": len(processes),
        "died": [process.died for process in processes if process.died is not None],
        "cpu_share_of_a_core": round(sum(process.cpu_seconds for process in processes) / seconds, 3)
        if seconds
        else 0.0,
        "busiest_process": round(max(shares, default=0.0), 3),
        "cpu_ms_per_call_second": _per_call_second(result, sent),
        "datagrams_sent": sum(process.datagrams_sent for process in processes),
        "datagrams_received": sum(process.datagrams_received for process in processes),
        "socket_errors": dict(errors),
    }


def _per_call_second(result: Result, sent: int) -> float | None:
    """All that the run cost us, set-up and reporting included, for each second that a call talked."""
    cpu = sum(process.cpu_seconds for process in result.processes)
    return round(cpu * 1000 / (sent * TICK_SECONDS), 3) if sent else None


def _network(result: Result, options: Options) -> dict[str, Any]:
    network = options.network
    default = Conditions()
    return {
        "conditions": {
            field.name: getattr(network.conditions, field.name)
            for field in fields(Conditions)
            if getattr(network.conditions, field.name) != getattr(default, field.name)
        },
        "rebind_every_s": network.rebind_seconds if math.isfinite(network.rebind_seconds) else None,
        "seed": network.seed,
        "dropped": result.network_drops,
        "rebindings": result.rebindings,
        "heard_again_after_ms": _spread(result.rebind_recovery),
    }


def _judge(failed: int, audio: dict[str, int], data: dict[str, int], allow_loss: bool) -> bool:
    wrong = failed + audio["duplicated"] + audio["corrupt"] + audio["foreign"] + data["corrupt"]
    return wrong == 0 and (allow_loss or audio["lost"] + data["lost"] == 0)


def _setup(calls: list[CallResult]) -> dict[str, dict[str, float | None]]:
    return {stage: _spread_of(partial(percentile, found)) for stage, found in _setup_times(calls).items()}


def _setup_times(calls: list[CallResult]) -> dict[str, list[float]]:
    stages = CONVERSATION_STAGES if any(call.turns is not None for call in calls) else ECHO_STAGES
    times = {
        stage: [call.reached[stage] - call.reached[since] for call in calls if stage in call.reached]
        for stage, since in STAGES.items()
        if stage in stages
    }
    return times | {"all": [max(call.reached.values()) - call.reached["start"] for call in calls if call.ready]}


def _curve(of: Callable[[float], float | None]) -> list[float | None]:
    return [None if (value := of(percent / 100)) is None else _rounded(value * 1000) for percent in range(101)]


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None


def _permille(part: int, whole: int) -> float | None:
    return round(1000 * part / whole, 3) if whole else None


def _one(call: CallResult) -> dict[str, Any]:
    return {
        "call": call.number,
        "failure": call.failure,
        **{name: call.audio.get(name, 0) for name in ("sent", "received", "early", "lost", "late")},
        "longest_gap_ms": _rounded(call.longest_gap * 1000),
        "messages_lost": call.data.get("lost", 0),
        **({} if call.turns is None else {"turns": call.turns}),
    }


def _spread(histogram: Histogram) -> dict[str, float | None]:
    return _spread_of(histogram.percentile)


def _spread_of(of: Callable[[float], float | None]) -> dict[str, float | None]:
    found = {name: of(share) for name, share in _SHARES.items()}
    return {name: None if value is None else _rounded(value * 1000) for name, value in found.items()}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


# To read


def render(summary: Summary) -> list[RenderableType]:
    styles = {"": "{}", "warn": "[yellow]{}[/]", "bad": "[red]{}[/]", "well": "[bold green]{}[/]"}
    said = [styles[tone].format(escape(text)) for tone, text in sentences(summary)]
    return [*_tables(summary), *said] if summary.has_figures else [*said]


def _tables(summary: Summary) -> Iterable[Table]:
    times = Table(title="milliseconds", title_justify="left", title_style="bold")
    times.add_column("")
    for name in _SHARES:
        times.add_column(name, justify="right")
    for stage, spread in summary.setup_ms.items():
        times.add_row(STAGE_NAMES.get(stage, stage), *map(say, spread.values()), end_section=stage == "all")
    if summary.turns:
        return turn_tables(times, summary.turns)
    times.add_row("audio there and back", *map(say, summary.audio["round_trip_ms"].values()))
    times.add_row("data there and back", *map(say, summary.data["round_trip_ms"].values()))
    gap = summary.audio["longest_gap_ms"]
    times.add_row("longest gap of a call", say(gap["p50"]), "", "", say(gap["max"]))

    counts = Table(title="counts", title_justify="left", title_style="bold")
    counts.add_column("")
    counts.add_column("audio frames", justify="right")
    counts.add_column("data messages", justify="right")
    for name in ("sent", "received", "early", "lost", "late", "duplicated", "foreign", "corrupt"):
        counts.add_row(name, say(summary.audio[name]), say(summary.data.get(name)))
    return times, counts


def sentences(summary: Summary) -> Iterable[tuple[str, str]]:
    """What is worth saying, each with its tone: "", warn, bad or well; the verdict last."""
    calls, audio, generator, network = summary.calls, summary.audio, summary.generator, summary.network
    for kinds, count in summary.security.items():
        yield "", f"{_count(count, 'call')} with {kinds}"
    if (share := audio["on_schedule"]) is not None:
        late, lost = audio["late_permille"], audio["lost_permille"]
        yield "", f"{share:.2%} of the frames were back on schedule; {late:g} ‰ came late, {lost:g} ‰ never"
    if agent := summary.agent:
        of, copied = agent["expected"], agent["by_copy"]
        yield (
            "",
            f"slots filled in time at the agent: {agent['filled_in_time']:.2%} of {of}; "
            f"{agent['recovered'] / of:.2%} by what was sent again or twice, {copied / of:.2%} by a copy in the next frame; "
            f"{agent['late'] / of:.2%} came late, {agent['missing'] / of:.2%} never; within 200 ms "
            f"{agent['within_200_ms'] / of:.2%}",
        )
    if summary.turns:
        yield from turn_sentences(summary.turns)
    yield from _processes(summary)
    if network["conditions"] or network["rebindings"]:
        dropped = ", ".join(f"{count} {reason}" for reason, count in network["dropped"].items()) or "nothing"
        yield "", f"a bad network between (seed {network['seed']}): {describe_network(network)}; dropped: {dropped}"
    if network["rebindings"]:
        median, worst = (say(network["heard_again_after_ms"][share]) for share in ("p50", "max"))
        rebindings = _count(network["rebindings"], "rebinding")
        yield "", f"{rebindings}; heard again after {median} ms (p50), {worst} ms (max)"
    late, skipped = generator["frames_sent_late"], generator["frames_skipped"]
    if late or skipped:
        worst = f"at worst {generator['worst_lateness_ms']} ms"
        left = _count(late, "frame")
        yield "warn", f"of our own making: {left} left more than 5 ms late ({worst}), {skipped} never left"
    for died in generator["died"]:
        yield "bad", f"a process of the generator ended before its time ({died}); what it had measured is lost"
    if generator["limit"]:
        yield "bad", describe_limit(generator, audio["round_trip_ms"]["max"])
    if generator["socket_errors"]:
        yield "warn", f"the system refused datagrams: {generator['socket_errors']}"
    if audio["held"]:
        yield "warn", f"{audio['held']} frames were held back without the server's consent"
    for reason, count in calls["failures"].items():
        yield "bad", f"failed: {count} × {reason}"
        if (meaning := describe_failure(reason, all_failed=not calls["succeeded"])) is not None:
            yield "warn", f"{reason}: {meaning}"
    if summary.turns:
        yield turn_verdict(summary.ok, calls, summary.turns, summary.seconds)
        return
    yield (
        "well" if summary.ok else "bad",
        f"{'well' if summary.ok else 'not well'}: {_count(calls['wanted'], 'call')}, {calls['failed']} failed, {audio['lost']} "
        f"frames and {summary.data['lost']} messages lost, in {summary.seconds:.1f} s",
    )


def _processes(summary: Summary) -> Iterable[tuple[str, str]]:
    stack = {name: one for name, one in summary.processes.items() if one["cpu_ms_per_call_second"] is not None}
    if stack:
        costs = ((name, one["cpu_ms_per_call_second"]) for name, one in stack.items())
        spent = ", ".join(f"{name}: {cost:.3g}" for name, cost in total_by_kind(costs, GENERATOR).items())
        yield "", f"milliseconds of CPU for each second of a call: {spent}"
    for name, one in stack.items():
        if one["flat"] is False:
            first, last = one["resident_mib"]["first"], one["resident_mib"]["last"]
            yield "bad", f"the memory of {name} is not flat: {first} MiB, then {last} MiB"
    # With --url there are none of the stack: its memory is not seen from here.
    judged = [one for name, one in stack.items() if name.partition(" ")[0] != GENERATOR and one["flat"] is not None]
    if judged and all(one["flat"] for one in judged):
        most = max(0.0, *(one["rise_mib"] for one in judged))
        yield "well", f"memory is flat: while all calls talked no process of the stack rose by more than {most} MiB"
    if capacity := summary.capacity:
        yield "", f"{capacity['calls']} calls, then: {capacity['reason']}"
        for name in ("relay", "transceiver", "agent"):
            cost = sum(one["cpu_ms_per_call_second"] for key, one in stack.items() if key.partition(" ")[0] == name)
            if cost:
                yield (
                    "",
                    f"a core of its own would carry {1000 * CORE / cost:.0f} calls of the {name}, by what it cost here",
                )


def _count(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"

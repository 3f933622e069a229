"""`just bench transceiver`: CPU time and memory that a talking call costs, beside aiortc driven by the same callers.

1. Relay, transceiver and agent (`echo`) start as `just up` starts them; the transceiver alone on one CPU, all else on the
other. aiortc starts beside it on the transceiver's CPU and sleeps while it is not called. 2. A few calls to each, so that
nothing that happens once is measured. 3. Rounds are interleaved: each server gets its calls (50 packets a second each way
and a data message a second, from the load generator), and is measured while all of them talk.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace

from bench.caller import Outcome
from bench.calls import CODING, OURS, Server, place_calls_on, start_servers
from bench.figures import Section
from bench.progress import Progress

__all__ = ["TransceiverOptions", "measure_transceiver"]

# Implementation constants
RATE = 20.0  # new calls per second
WARM_CALLS = 2
WARM_TALK = 0.3
FRAMES_PER_SECOND = 50
KEPT_UP = 0.98


@dataclass(frozen=True, slots=True)
class TransceiverOptions:
    calls: int
    coding_calls: int
    rounds: int
    seconds: float


def measure_transceiver(options: TransceiverOptions, progress: Progress) -> Section:
    """Raises BenchFailed."""
    section = Section(title=f"transceiver: {options.calls} calls talk")
    if options.coding_calls:
        section.note(f"{CODING}: only {options.coding_calls} calls, more would fill its CPU")
    with ExitStack() as stack:
        progress.say("starting the stack and aiortc")
        servers, cpu = start_servers(stack, calls=options.calls, coding_calls=options.coding_calls)
        for server in servers:
            place_calls_on(replace(server, calls=WARM_CALLS), rate=RATE, talk=WARM_TALK, cpu=cpu)
        for number in range(options.rounds):
            for server in servers:
                progress.say(f"round {number + 1} of {options.rounds}: {server.calls} calls to {server.name}")
                outcome = place_calls_on(server, rate=RATE, seconds=options.seconds, cpu=cpu)
                _add(section, server, outcome, first=number == 0)
    return section


def _add(section: Section, server: Server, outcome: Outcome, *, first: bool) -> None:
    call_seconds = server.calls * outcome.window
    unit = "CPU ms/call-second"
    cost = {name: seconds * 1000 / call_seconds for name, seconds in outcome.cpu.items()}
    section.add("the process itself", server.name, unit, cost[server.process], is_reference=server.is_reference)
    whole = sum(cost[name] for name in server.pids)
    words = " + ".join(server.pids) if server.name == OURS else server.name
    if server.name != CODING:
        section.add("all that serves a call", words, unit, whole, is_reference=server.is_reference)
    if server.name == OURS:
        for name in list(server.pids)[1:]:
            section.add("the others, apart", name, unit, cost[name])
        section.add("the others, apart", "caller (load generator)", unit, cost["caller"])
    if first:  # later rounds use memory again that this one left
        process = server.process
        kib = (outcome.resident[process] - outcome.resident_before[process]) / server.calls / 1024
        section.add("memory", server.name, "KiB/call", kib, is_reference=server.is_reference)
    if outcome.frames_sent < KEPT_UP * FRAMES_PER_SECOND * call_seconds or outcome.frames_skipped:
        section.note(f"the load generator did not keep up: {outcome.frames_sent / call_seconds:.1f} packets/s a call")
    if outcome.frames_received < KEPT_UP * outcome.frames_sent:
        section.note(f"{server.name}: {outcome.frames_sent - outcome.frames_received} frames did not come back in time")

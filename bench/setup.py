"""`just bench setup`: CPU time that a call costs before and after it talks: signalling, ICE, DTLS, SCTP, and its end.

Calls are placed twice, to talk shortly and longer. The difference is the price of talking; what remains of the short ones
without it is the price of set-up, hang-up (a second HTTP request) and clean-up together. Both servers have the same HTTP
server, and certificates for ECDSA P-256.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace

from bench.calls import OURS, place_calls_on, start_servers
from bench.figures import Section, without_talk
from bench.progress import Progress

__all__ = ["SetupOptions", "measure_setup"]

# Implementation constants
RATE = 20.0  # new calls per second
SHORT, LONG = 0.2, 1.2  # seconds of talk
WARM_CALLS = 2
UNIT = "CPU ms/call"


@dataclass(frozen=True, slots=True)
class SetupOptions:
    calls: int
    rounds: int


def measure_setup(options: SetupOptions, progress: Progress) -> Section:
    """Raises BenchFailed."""
    section = Section(title=f"set-up and end of a call, {RATE:g} calls a second")
    with ExitStack() as stack:
        progress.say("starting the stack and aiortc")
        servers, cpu = start_servers(stack, calls=options.calls, coding_calls=0)
        for server in servers:
            place_calls_on(replace(server, calls=WARM_CALLS), rate=RATE, talk=SHORT, cpu=cpu)
        for number in range(options.rounds):
            for server in servers:
                progress.say(f"round {number + 1} of {options.rounds}: {server.calls} calls to {server.name}")
                short, long = (
                    place_calls_on(server, rate=RATE, talk=talk, cpu=cpu).cpu_whole for talk in (SHORT, LONG)
                )
                cost = {
                    name: without_talk((SHORT, short[name]), (LONG, long[name])) * 1000 / server.calls for name in short
                }
                section.add(
                    "the process itself", server.name, UNIT, cost[server.process], is_reference=server.is_reference
                )
                whole = sum(cost[name] for name in server.pids)
                words = " + ".join(server.pids) if server.name == OURS else server.name
                section.add("all that serves a call", words, UNIT, whole, is_reference=server.is_reference)
    return section

"""`just bench transceiver`: CPU time that a talking call costs, beside Pion, aiortc and an echo in C, with the same callers.

1. Our processes start as `just up` starts them, the transceiver on one CPU, all else on another; the references start on the
transceiver's CPU. 2. Rounds are interleaved. In each, each party in turn gets its calls, by real signalling, ICE, DTLS and
SCTP; they talk for a while, 50 packets a second each way, and the CPU of the process is read at the beginning and at the
end; then they hang up. So only one party ever has calls.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.calls import CODING, DIRECT, PASSING, RELAYED, SEPARATE, Party, Servers
from bench.figures import Section
from bench.orders import Talked
from bench.progress import Progress
from bench.reference.pion import PION

__all__ = ["BAR_CALLS", "BAR_GROWTH", "TransceiverOptions", "measure_transceiver"]

# Implementation constants
RATE, AIORTC_RATE = 50.0, 20.0  # new calls per second
UNIT = "CPU ms/call-second"
BAR_CALLS, BAR_GROWTH = 200, (50, 500)
ALONE, OTHERS, GROWTH = "the process that terminates calls", "the others, apart", f"growth: {DIRECT}"


@dataclass(frozen=True, slots=True)
class TransceiverOptions:
    calls: int
    aiortc_calls: int
    coding_calls: int
    """aiortc would not serve as many as the others on one CPU."""
    growth: tuple[int, int]
    rounds: int
    seconds: float
    """Of each round and party."""


def measure_transceiver(options: TransceiverOptions, progress: Progress) -> Section:
    """Raises BenchFailed."""
    section = Section(title=f"transceiver: {options.calls} calls talk, 50 packets/s each way")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        progress.say("building the references, starting everything")
        servers = Servers(stack, section, folder)
        parties = _parties(servers, options)
        growing = [(servers.direct(), calls) for calls in options.growth]
        for number in range(options.rounds):
            for party, calls, rate in parties:
                progress.say(f"round {number + 1} of {options.rounds}: {calls} calls to {party.name}")
                if (talked := _talk(party, calls, rate, options.seconds)) is not None:
                    _add(section, party, talked)
            for party, calls in growing:
                progress.say(f"round {number + 1} of {options.rounds}: {calls} calls to {party.name}")
                if (talked := _talk(party, calls, RATE, options.seconds)) is not None:
                    value, own = cost(talked, party.process)
                    few = calls == min(options.growth)
                    section.add(GROWTH, f"{calls} calls", UNIT, value, own=own, is_reference=few)
        for party in (*(party for party, _, _ in parties), *(party for party, _ in growing)):
            party.tell(section)
    _hold(section, options)
    return section


def _talk(party: Party, calls: int, rate: float, seconds: float) -> Talked | None:
    if party.is_preset:
        return party.talk(seconds)
    party.open(calls, rate)
    talked = party.talk(seconds)
    party.close()
    return talked


def _parties(servers: Servers, options: TransceiverOptions) -> list[tuple[Party, int, float]]:
    parties = []
    for start, calls, rate in (
        (servers.direct, options.calls, RATE),
        (servers.relayed, options.calls, RATE),
        (servers.separate, options.calls, RATE),
        (servers.pion, options.calls, RATE),
        (lambda: servers.c_echo(options.calls), options.calls, RATE),
        (lambda: servers.aiortc("passing"), options.aiortc_calls, AIORTC_RATE),
        (lambda: servers.aiortc("coding"), options.coding_calls, AIORTC_RATE),
    ):
        party = start()
        if party is not None:
            parties.append((party, calls, rate))
    return parties


def _add(section: Section, party: Party, talked: Talked) -> None:
    value, own = cost(talked, party.process)
    section.add(ALONE, party.name, UNIT, value, own=own, is_reference=party.is_reference)
    for name in list(party.pids)[1:]:
        value, own = cost(talked, name)
        section.add(OTHERS, f"{name}, with {party.name}", UNIT, value, own=own)
    if party.name == DIRECT:
        value, own = cost(talked, "caller")
        section.add(OTHERS, "the callers", UNIT, value, own=own)
    if party.name in (PASSING, CODING):
        section.note(f"{party.name}: only {talked.calls} calls; many more would fill its CPU")


def cost(talked: Talked, process: str) -> tuple[float, float]:
    """CPU ms for each call and second, and the part of it in the process's own code."""
    call_seconds = talked.calls * talked.seconds
    used = talked.usage[process]
    return used.cpu * 1000 / call_seconds, used.own * 1000 / call_seconds


def _hold(section: Section, options: TransceiverOptions) -> None:
    unlike = "" if options.calls == BAR_CALLS else f"the bar is of {BAR_CALLS} calls"
    for subject in (DIRECT, RELAYED):
        for reference, limit in ((PION, 0.55), (PASSING, 0.35), (CODING, 0.03)):
            section.hold(ALONE, subject, limit, to=reference, unlike=unlike)
    section.hold(ALONE, SEPARATE, 0.70, to=PION, unlike=unlike)
    few, many = options.growth
    if options.growth == BAR_GROWTH:  # with other numbers the ratio is shown, but says nothing of the bar
        section.hold(GROWTH, f"{many} calls", 1.0, to=f"{few} calls")

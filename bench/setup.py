"""`just bench setup`: what a call costs before it talks, and how long its caller waits; beside Pion and aiortc.

Calls are placed one after the other at a rate, by the same callers: signalling, ICE, DTLS, SCTP, until the data channel is
open and a frame of audio has come back; then no more audio is sent, and CPU is read. What hang-up and clean-up cost is read
apart. The wait is from a call's POST until the first frame of it has come back.
"""

from __future__ import annotations

import statistics
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.calls import DIRECT, RELAYED, Party, Servers
from bench.figures import Section
from bench.progress import Progress
from bench.reference.pion import PION

__all__ = ["SetupOptions", "measure_setup"]

# Implementation constants
RATE = 20.0  # new calls per second
WARM_CALLS = 5
BAR_CALLS = 40  # that the bars are about
SETUP, END, HEARD, ANSWERED = "set-up", "hang-up and clean-up", "POST → first media heard", "POST → answer"
COST, WAIT = "CPU ms/call", "ms"


@dataclass(frozen=True, slots=True)
class SetupOptions:
    calls: int
    rounds: int


def measure_setup(options: SetupOptions, progress: Progress) -> Section:
    """Raises BenchFailed."""
    section = Section(title=f"setup: {options.calls} calls, {RATE:g} a second")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        progress.say("building the references, starting everything")
        servers = Servers(stack, section, folder)
        started = [servers.direct(), servers.relayed(), servers.pion(), servers.aiortc("passing")]
        parties = [party for party in started if party is not None]
        for party in parties:
            party.open(WARM_CALLS, RATE)
            party.close()
        for number in range(options.rounds):
            for party in parties:
                progress.say(f"round {number + 1} of {options.rounds}: {options.calls} calls to {party.name}")
                _measure(section, party, options)
    for subject in (DIRECT, RELAYED):
        unlike = "" if options.calls == BAR_CALLS else f"the bar is of {BAR_CALLS} calls"
        section.hold(SETUP, subject, 0.65, to=PION, unlike=unlike)
        section.hold(HEARD, subject, 0.9, to=PION, unlike=unlike)
    return section


def _measure(section: Section, party: Party, options: SetupOptions) -> None:
    opened, closed = party.open(options.calls, RATE), party.close()
    for what, usage in ((SETUP, opened.usage), (END, closed.usage)):
        for name in party.pids:
            subject = party.name if name == party.process else f"{name}, with {party.name}"
            used = usage[name]
            section.add(
                what,
                subject,
                COST,
                used.cpu * 1000 / options.calls,
                own=used.own * 1000 / options.calls,
                is_reference=party.is_reference,
            )
    for what, waits in ((HEARD, opened.first_media_ms), (ANSWERED, opened.answer_ms)):
        section.add(what, party.name, WAIT, statistics.median(waits), is_reference=party.is_reference)
    if party.name == DIRECT:
        section.add(SETUP, "the callers", COST, opened.usage["caller"].cpu * 1000 / options.calls)

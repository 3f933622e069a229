"""`just bench memory`, `just bench half-open`: memory of a talking call, and of an offer that nobody follows up; beside others.

Talking: each round begins with new processes, which some calls have warmed up. Resident memory is read before the calls come,
and when all of them have talked for a while. Of a server with a garbage collector that contains what it keeps ready.

Half open: offers one after the other over one HTTP connection, and no check ever comes; limits and timeouts are raised so
that all of them stay. Memory is read before and after; the slowest answer shows where the process stood still. aiortc is
given fewer: each costs it a socket.
"""

from __future__ import annotations

import secrets
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx

from bench.accounts import TreeAccounts
from bench.calls import DIRECT, PASSING, SEPARATE, Party, Servers
from bench.figures import Section
from bench.processes import BenchFailed
from bench.progress import Progress
from bench.reference.pion import PION
from protocol.dtls import Identity
from protocol.ice import IceCredentials
from protocol.sdp import Capabilities, create_offer

__all__ = ["HalfOpenOptions", "MemoryOptions", "measure_half_open", "measure_memory"]

# Implementation constants
BAR_CALLS = 200  # that the bars are about
RATE = 40.0  # new calls per second
WARM_CALLS = 10
WARM_OFFERS = 100  # so that what is made once is not measured
TALK = 3.0  # seconds
TALKING, OFFER, MEDIAN, SLOWEST = "a talking call", "an offer", "an answer, median", "an answer, the slowest"
SDP = {"Content-Type": "application/sdp"}


@dataclass(frozen=True, slots=True)
class MemoryOptions:
    calls: int
    aiortc_calls: int
    rounds: int


@dataclass(frozen=True, slots=True)
class HalfOpenOptions:
    offers: int
    aiortc_offers: int


def measure_memory(options: MemoryOptions, progress: Progress) -> Section:
    """Raises BenchFailed."""
    section = Section(title=f"memory: {options.calls} calls talk")
    for number in range(options.rounds):
        for name in (DIRECT, SEPARATE, PION, PASSING):
            calls = options.aiortc_calls if name == PASSING else options.calls
            progress.say(f"round {number + 1} of {options.rounds}: {calls} calls to {name}")
            with ExitStack() as stack:
                if (party := _start(name, stack, section)) is not None:
                    _talk(section, party, calls)
    for subject in (DIRECT, SEPARATE):
        unlike = "" if options.calls == BAR_CALLS else f"the bar is of {BAR_CALLS} calls"
        section.hold(TALKING, subject, 0.35, to=PION, unlike=unlike)
    return section


def measure_half_open(options: HalfOpenOptions, progress: Progress) -> Section:
    """Raises BenchFailed."""
    section = Section(
        title=f"half-open: {options.offers} offers that nobody follows up, and {options.aiortc_offers} of aiortc's"
    )
    for name in (DIRECT, PION, PASSING):
        offers = options.aiortc_offers if name == PASSING else options.offers
        progress.say(f"{offers} offers to {name}")
        with ExitStack() as stack:
            if (party := _start(name, stack, section)) is not None:
                _offer(section, party, offers)
    return section


def _start(name: str, stack: ExitStack, section: Section) -> Party | None:
    servers = Servers(stack, section, Path(stack.enter_context(tempfile.TemporaryDirectory())))
    if name == PION:
        return servers.pion()
    if name == PASSING:
        return servers.aiortc("passing")
    return servers.direct() if name == DIRECT else servers.separate()


def _talk(section: Section, party: Party, calls: int) -> None:
    party.open(WARM_CALLS, RATE)
    party.close()
    before = party.open(calls, RATE).resident_before
    talked = party.talk(TALK)
    party.tell(section)
    if talked is None:
        return
    kib = (talked.resident[party.process] - before[party.process]) / calls / 1024
    section.add(TALKING, party.name, "KiB", kib, is_reference=party.is_reference)
    if party.name == PASSING:
        section.note(f"{party.name}: only {calls} calls")


def _offer(section: Section, party: Party, offers: int) -> None:
    offer = _new_offer()
    process = TreeAccounts(party.pids[party.process])
    waits: list[float] = []
    before = 0
    with httpx.Client(base_url=party.url, timeout=30, headers=SDP) as http:
        for number in range(WARM_OFFERS + offers):
            if number == WARM_OFFERS:
                before = process.resident_bytes()
                waits.clear()
            began = time.perf_counter()
            response = http.post("/v1/realtime/calls", content=offer)
            waits.append((time.perf_counter() - began) * 1000)
            if response.status_code != 201:
                raise BenchFailed(f"{party.name} answered an offer with {response.status_code}")
    grown = process.resident_bytes() - before
    for what, unit, value in (
        (OFFER, "KiB", grown / offers / 1024),
        (MEDIAN, "ms", statistics.median(waits)),
        (SLOWEST, "ms", max(waits)),
    ):
        section.add(what, party.name, unit, value, is_reference=party.is_reference)


def _new_offer() -> str:
    return create_offer(
        Capabilities(
            ice=IceCredentials.generate(secrets.token_bytes),
            fingerprint=Identity.generate(datetime.now(UTC)).fingerprint(),
            session_id=1,
            ssrc=1,
            cname="bench",
            ice_lite=False,
        )
    )

"""`just bench half-open`: memory that an offer costs which nobody follows up, and how long the slowest of many offers waits.

Offers are placed one after the other over one HTTP connection, and no check ever comes. Resident memory is read before and
after; the slowest answer shows pauses of the process, such as the garbage collector's. Limits and timeouts are raised so
that all of them stay. aiortc is given fewer: each costs it a socket.
"""

from __future__ import annotations

import secrets
import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx

from bench.accounts import ProcessAccounts
from bench.calls import OURS, PASSING, Server
from bench.figures import Section
from bench.processes import BenchFailed, Child, clean_environment, python
from bench.progress import Progress
from bench.wiring import start_stack
from protocol.dtls import Identity
from protocol.ice import IceCredentials
from protocol.sdp import Capabilities, create_offer

__all__ = ["HalfOpenOptions", "measure_half_open"]

# Implementation constants
WARM_OFFERS = 100  # so that what is made once is not measured
MOST = 20_000
NOT_MEANWHILE = "3600"  # seconds
SDP = {"Content-Type": "application/sdp"}


@dataclass(frozen=True, slots=True)
class HalfOpenOptions:
    offers: int
    reference_offers: int


def measure_half_open(options: HalfOpenOptions, progress: Progress) -> Section:
    """Raises BenchFailed."""
    section = Section(
        title=f"offers that nobody follows up: {options.offers}, and {options.reference_offers} of aiortc's"
    )
    with ExitStack() as stack:
        progress.say("starting the stack and aiortc")
        ours = start_stack(
            stack,
            transceiver_cpu=None,
            other_cpu=None,
            ANTIPHON_TRANSCEIVER_MAX_SESSIONS=str(MOST),
            ANTIPHON_TRANSCEIVER_MAX_HALF_OPEN=str(MOST),
            ANTIPHON_TRANSCEIVER_TIMEOUTS_ICE_CONNECT=NOT_MEANWHILE,
            ANTIPHON_TRANSCEIVER_TIMEOUTS_SETUP=NOT_MEANWHILE,
            ANTIPHON_AGENT_MAX_CALLS=str(MOST),
        )
        aiortc = stack.enter_context(
            Child(PASSING, python("-m", "bench.reference.aiortc_echo", "passing"), clean_environment(), cpu=None)
        )
        for server in (
            Server(OURS, ours.url, ours.pids, options.offers, is_reference=False),
            Server(PASSING, str(aiortc.bound["http"][0]), {"aiortc": aiortc.pid}, options.reference_offers, True),
        ):
            progress.say(f"{server.calls} offers to {server.name}")
            _place(section, server)
    return section


def _place(section: Section, server: Server) -> None:
    offer = _offer()
    process = ProcessAccounts(server.pids[server.process])
    waits: list[float] = []
    with httpx.Client(base_url=server.url, timeout=30, headers=SDP) as http:
        for number in range(WARM_OFFERS + server.calls):
            if number == WARM_OFFERS:
                before = process.resident_bytes()
                waits.clear()
            began = time.perf_counter()
            response = http.post("/v1/realtime/calls", content=offer)
            waits.append((time.perf_counter() - began) * 1000)
            if response.status_code != 201:
                raise BenchFailed(f"{server.name} answered an offer with {response.status_code}")
    grown = process.resident_bytes() - before
    for what, unit, value in (
        ("memory", "KiB/offer", grown / server.calls / 1024),
        ("an answer, median", "ms", statistics.median(waits)),
        ("an answer, the slowest", "ms", max(waits)),
    ):
        section.add(what, server.name, unit, value, is_reference=server.is_reference)


def _offer() -> str:
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

"""The run: calls come at the given rate, talk for the given time, and hang up. One task for each call's life, none for packets.

Calls come whether or not earlier ones have been answered (an open loop), and the set-up of a call counts from the moment when
it was due: a server that stalls, or a generator that does, delays nobody out of the figures.

A call's life:

1. Post the offer; give the answer to the call.
2. Wait until it is ready (or the set-up deadline passes), then let it talk.
3. Stop, and let echoes that are on their way arrive; what is missing then is lost. A conversation comes to the end of its turn.
4. Post the hang-up, which must be answered by 200, and hear the server's goodbye.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import NamedTuple

import httpx
import trio

from loadgen.call import Call, CallFigures
from loadgen.conversing import ConversingCall
from loadgen.distribution import Histogram
from loadgen.driver import Driver, Line
from loadgen.options import Arrivals, Options
from loadgen.script import Script
from loadgen.signalling import SignallingFailed, hang_up, new_client, post_offer, read_key
from loadgen.turns import TurnFigures
from protocol.ice import IceFullConfig

__all__ = ["METERS", "Run", "Share", "arrivals", "place_calls"]

# Implementation constants, seconds
CONSENT_EXPIRES = 30.0  # RFC 7675 §5.1
ECHO_PATIENCE = 0.5
FAREWELL_PATIENCE = 2.0
TURN_PATIENCE = 90.0  # a sentence, and the longest answer that a caller has patience for
METER_PATIENCE = 4.0  # two retransmissions of the question, or of its answer, are in it
MAX_CONNECTIONS = 200

METERS = ("meter", "internal:meter")
"""The agent that can be asked how well the audio came."""


class Share(NamedTuple):
    """Which calls of the run are placed here: every so manieth, from the first on."""

    first: int = 0
    every: int = 1


ALL = Share()


@dataclass(slots=True)
class Run:
    """What progress and report look at."""

    options: Options
    driver: Driver
    share: Share = ALL
    script: Script | None = None
    """What callers say; None: they do not converse."""
    turns: TurnFigures = field(default_factory=TurnFigures)
    figures: CallFigures = field(init=False)
    calls: list[Call] = field(default_factory=list)
    talking: int = 0
    finished: int = 0
    begun: bool = False
    started_at: float = field(default_factory=trio.current_time)
    seconds: float = 0.0
    arrival_lateness: Histogram = field(default_factory=Histogram)
    """How long after its time a call began: ours, not the server's."""
    cpu_seconds: float = field(default_factory=lambda: -time.process_time())
    """Of this process, for all of the run; negative until it has ended."""

    def __post_init__(self) -> None:
        self.figures = CallFigures(os.urandom(4), fec=self.options.fec, message_seconds=self.options.message_seconds)
        self.driver.measured.append(self.figures.frame_round_trips)


async def place_calls(run: Run, url: str, begin: Callable[[], Awaitable[float]] | None = None) -> None:
    """Until every call has ended. Cancel it to end them early: they say goodbye, and count as failed.

    `begin` is asked when everything is ready for the first call, and says when that one is due; without it: now.
    """
    options = run.options
    connections = min(options.calls, MAX_CONNECTIONS)
    key = read_key() if options.url is not None else ""
    client = new_client(url, connections=connections, through_proxy=options.url is not None, key=key)
    # That read the machine's certificates, for a tenth of a second and more: not lateness of the first calls.
    run.started_at = trio.current_time() if begin is None else await begin()
    run.begun, run.cpu_seconds = True, -time.process_time()
    try:
        async with client, trio.open_nursery() as media:
            media.start_soon(run.driver.run)
            async with trio.open_nursery() as lives:
                for number, due in enumerate(arrivals(options, run.started_at)):
                    if number % run.share.every == run.share.first:
                        await trio.sleep_until(due)
                        lives.start_soon(_live, run, client, number, due)
            media.cancel_scope.cancel()
    finally:
        run.seconds = trio.current_time() - run.started_at
        run.cpu_seconds += time.process_time()


def arrivals(options: Options, start: float) -> Iterator[float]:
    """When each call is due: at even distances, or as independent callers come (a Poisson process)."""
    random = Random(f"{options.network.seed} arrivals")
    due = start
    for number in range(options.calls):
        if options.arrivals is Arrivals.POISSON:
            due += random.expovariate(options.rate) if number else 0.0
        else:
            due = start + number / options.rate
        yield due


async def _live(run: Run, client: httpx.AsyncClient, number: int, due: float) -> None:
    driver = run.driver
    run.arrival_lateness.add(driver.clock() - due)
    # As Chromium does, which does not pause either while checks stay without an answer, until consent is lost.
    ice = IceFullConfig(
        consent_interval=run.options.check_seconds, consent_late=CONSENT_EXPIRES, repeat_nomination=True
    )
    now_wall = datetime.now(UTC)
    call: Call
    if run.script is None:
        call = Call(number, run.figures, ice=ice, now=due, now_wall=now_wall, entropy=os.urandom)
    else:
        call = ConversingCall(
            number,
            run.figures,
            run.script,
            run.turns,
            run.options.habits,
            ice=ice,
            now=due,
            now_wall=now_wall,
            entropy=os.urandom,
        )
    run.calls.append(call)
    try:
        line = driver.open(call)
    except OSError as error:
        call.fail(f"no_socket_{error.errno}")
        run.finished += 1
        return
    try:
        await _make_call(run, client, line)
    except trio.Cancelled:
        call.fail("interrupted")
        raise
    finally:
        driver.close(line)
        run.finished += 1


async def _make_call(run: Run, client: httpx.AsyncClient, line: Line) -> None:
    call, driver = line.call, run.driver
    try:
        answered = await post_offer(client, call.offer())
    except SignallingFailed as failure:
        call.fail(failure.reason)
        return
    call.answered(answered.sdp, driver.clock())
    driver.touch(line)

    with trio.move_on_after(run.options.setup_seconds):
        await line.ready.wait()
    if not call.is_ready:
        call.fail(f"no_{call.missing_stage}")
    else:
        await _talk(run, line)
    await _end(client, line, answered.location)


async def _talk(run: Run, line: Line) -> None:
    call, driver = line.call, run.driver
    run.talking += 1
    try:
        with trio.move_on_after(run.options.seconds):
            await line.over.wait()
        if isinstance(call, ConversingCall):
            call.conversation.finish(driver.clock())
            driver.touch(line)
            with trio.move_on_after(TURN_PATIENCE):
                await line.answered.wait()
    finally:
        run.talking -= 1
    call.stop_talking(driver.clock())
    driver.touch(line)  # it may have nothing missing
    with trio.move_on_after(ECHO_PATIENCE):
        await line.answered.wait()
    if run.options.agent in METERS:
        call.ask_slots(driver.clock())
        driver.touch(line)
        with trio.move_on_after(METER_PATIENCE):
            await line.told.wait()


async def _end(client: httpx.AsyncClient, line: Line, location: httpx.URL) -> None:
    """Also of calls that failed, unless the server has ended them: nothing of ours stays behind."""
    call = line.call
    if call.ended:
        return
    call.hung_up = True
    try:
        await hang_up(client, location)
    except SignallingFailed as failure:
        call.fail(failure.reason)
        return
    with trio.move_on_after(FAREWELL_PATIENCE):
        await line.over.wait()

"""`just bench voice`, its second part: whether an agent hears who speaks at once, from the first packet of all.

Calls are placed one after another; each sends a frame the moment its SRTP keys are there, and then one every 20 ms. The agent
echoes them. Every frame has its number in it, so that the first to come back tells how many nobody heard. Half of the
calls meet an agent that is late: its process is stopped before the offer, and let go when the caller has spoken for a while.
"""

from __future__ import annotations

import math
import os
import select
import signal
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import httpx

from bench.figures import Section
from bench.processes import BenchFailed
from bench.progress import Progress
from bench.wiring import OurStack, start_stack
from loadgen.call import Call, CallFigures
from loadgen.callsocket import Addresses, CallSocket
from protocol.dtls import Identity
from protocol.ice import IceFullConfig

__all__ = ["FirstWordOptions", "measure_first_word"]

# Specification constants
CALLS_PATH = "/v1/realtime/calls"
FRAME_SECONDS = 0.020
FIRST_WORD = 10  # frames: 200 ms

# Implementation constants, seconds
SPEAKS = 0.6
LATE = 0.3  # from the caller's first frame until the late agent is let go
SETTLES = 0.5  # for what is on its way
SETUP_LIMIT = 10.0
NAP = 0.001

PROMPT, TARDY = "agent at hand", f"agent {LATE * 1000:.0f} ms late"
LOST, FRAMES = "calls that lost a frame of the first 200 ms", "frames of the first 200 ms not heard"
WAIT = "first frame there and back"


@dataclass(frozen=True, slots=True)
class FirstWordOptions:
    calls: int


class Speaker:
    """One call, from its offer to its hang-up. Drives the load generator's caller, and speaks from the first moment on."""

    def __init__(self, number: int, figures: CallFigures, identity: Identity) -> None:
        self._addresses = Addresses()
        self._socket = CallSocket(self._addresses)
        self._began = time.perf_counter()
        self._secure_at = math.inf
        self.call = Call(
            number,
            figures,
            ice=IceFullConfig(),
            now=0.0,
            now_wall=datetime.now(UTC),
            entropy=os.urandom,
            identity=identity,
        )

    @property
    def now(self) -> float:
        return time.perf_counter() - self._began

    def talk(self, client: httpx.Client, on_first_frame: Callable[[], None]) -> None:
        """Raises BenchFailed."""
        answer = client.post(CALLS_PATH, content=self.call.offer(), headers={"Content-Type": "application/sdp"})
        if answer.status_code != 201:
            raise BenchFailed(f"an offer was answered with {answer.status_code}")
        self.call.answered(answer.content, self.now)
        end, told = math.inf, False
        sent = 0
        while self.now < end:
            self._exchange()
            now = self.now
            if self.call.is_over or (now > SETUP_LIMIT and not self.call.talking and math.isinf(self._secure_at)):
                raise BenchFailed(f"a call failed: {self.call.failure or 'no set-up'}")
            if self.call.talking and math.isinf(self._secure_at):
                self._secure_at, end = now, now + SPEAKS + SETTLES
            while self.call.talking and now >= self._secure_at + sent * FRAME_SECONDS:
                if now >= self._secure_at + SPEAKS:
                    self.call.stop_talking(now)
                    break
                self.call.tick(sent, 0.0, now)
                sent += 1
            self._send()
            if sent and not told and now >= self._secure_at + LATE:
                told = True
                on_first_frame()
        client.post(f"{answer.headers['Location']}/hangup")
        self.call.close(self.now)
        self._send()
        self._socket.close()

    def _exchange(self) -> None:
        select.select([self._socket], [], [], NAP)
        while True:
            length, source = self._socket.receive()
            if not length:
                break
            self.call.receive_untrusted(bytes(self._addresses.incoming.view[:length]), source, self.now)
        if self.now >= self.call.next_timeout():
            self.call.handle_timeout(self.now)
        self._send()

    def _send(self) -> None:
        for data, destination in self.call.take_datagrams():
            self._socket.send(data, destination)


def measure_first_word(options: FirstWordOptions, progress: Progress) -> Section:
    """Raises BenchFailed."""
    section = Section(title=f"first word: {options.calls} calls that speak from the first packet on, each way")
    identity = Identity.generate(datetime.now(UTC))
    with ExitStack() as stack:
        ours = start_stack(stack, transceiver_cpu=None, other_cpu=None)
        for subject, is_late in ((PROMPT, False), (TARDY, True)):
            losers, lost, waits = 0, 0, []
            for number in range(options.calls):
                progress.say(f"first word, {subject}: call {number + 1} of {options.calls}")
                call = _place(ours, number, identity, is_late=is_late)
                missed = min(FIRST_WORD, call.audio.early) if call.audio.received else FIRST_WORD
                if missed == 0 and call.audio.missing:
                    section.note(f"{subject}: {call.audio.missing} frames of a call did not come back at all")
                lost += missed
                losers += missed > 0
                waits.append((call.reached.get("audio", math.inf) - call.reached["dtls"]) * 1000)
            section.add(LOST, subject, f"of {options.calls}", losers)
            section.add(FRAMES, subject, f"of {options.calls * FIRST_WORD}", lost)
            section.add(WAIT, subject, "ms, median", statistics.median(waits))
            section.hold(LOST, subject, 0)
    return section


def _place(ours: OurStack, number: int, identity: Identity, *, is_late: bool) -> Call:
    assert ours.agent is not None
    speaker = Speaker(number, CallFigures(os.urandom(4)), identity)
    go = partial(os.kill, ours.agent.pid, signal.SIGCONT)
    try:
        if is_late:
            os.kill(ours.agent.pid, signal.SIGSTOP)
        with httpx.Client(base_url=ours.url, trust_env=False) as client:
            speaker.talk(client, go)
    finally:
        go()
    return speaker.call

"""Who serves calls, ours and the references, and the callers of each: what the benches of calls share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from bench.figures import Section
from bench.machine import measuring_cpus
from bench.orders import Closed, Opened, Order, Talked
from bench.processes import BenchFailed, Child, clean_environment, python
from bench.reference.pion import PION, build_pion, why_no_go
from bench.reference.srtp_echo import C_ECHO, compile_echo, start_echo
from bench.wiring import OurStack, start_stack, start_transceiver

__all__ = ["CODING", "DIRECT", "PASSING", "RELAYED", "SEPARATE", "Party", "Servers"]

# Implementation constants
DIRECT = "ours, agent inside, no relay"
RELAYED = "ours, agent inside, behind the relay"
SEPARATE = "ours, agent a process of its own"
PASSING, CODING = "aiortc, passing Opus on", "aiortc, as it comes"
MORE = 60.0  # seconds that callers may take beyond what they were ordered to
NO_LIMITS = {
    "ANTIPHON_TRANSCEIVER_MAX_SESSIONS": "20000",
    "ANTIPHON_TRANSCEIVER_MAX_HALF_OPEN": "20000",
    "ANTIPHON_TRANSCEIVER_TIMEOUTS_ICE_CONNECT": "3600",
    "ANTIPHON_TRANSCEIVER_TIMEOUTS_SETUP": "3600",
    "ANTIPHON_AGENT_MAX_CALLS": "20000",
}
"""The sizes of a measurement are its own affair; everything else is the default."""
KEPT_UP = 0.98
WORTHLESS = 0.9
WAITED = 0.1  # of a round
FULL = 0.95  # of a CPU

Answer = TypeVar("Answer", Opened, Talked, Closed)


@dataclass(slots=True)
class Doubts:
    """Of the worst round each: shares."""

    late: float = 0.0
    lost: float = 0.0
    changed: float = 0.0
    waited: float = 0.0
    busy: float = 0.0
    left_out: int = 0

    def sentences(self) -> Iterator[str]:
        if self.left_out:
            yield f"{self.left_out} rounds are left out, in which more than a tenth of the packets did not come back"
        if self.late > 1 - KEPT_UP:
            yield f"the callers were late with up to {self.late:.0%} of the packets of a round"
        if max(self.lost, self.changed) > 1 - KEPT_UP:
            yield (
                f"up to {self.lost:.0%} of the packets of a round did not come back in time; of those that were compared, "
                f"up to {self.changed:.0%} were not there or not what had been sent"
            )
        if self.waited > WAITED:
            yield f"others had the CPU that its threads wanted for up to {self.waited:.0%} of a round"
        if self.busy > FULL:
            yield "its CPU was full, it could not do more"


class Party:
    """A server and its callers. `process` is the one to compare, `pids` are all that serve a call."""

    def __init__(self, name: str, url: str, pids: dict[str, int], callers: Child, *, is_reference: bool) -> None:
        self.name = name
        self.url = url
        self.pids = pids
        self.is_reference = is_reference
        self.is_preset = not url  # its calls are there from the beginning
        self._callers = callers
        self._doubts: dict[int, Doubts] = {}

    @property
    def process(self) -> str:
        return next(iter(self.pids))

    def open(self, calls: int, rate: float) -> Opened:
        """Raises BenchFailed when a call failed: a figure of fewer calls would flatter."""
        opened = self._ask(Order(calls=calls, rate=rate, url=self.url, pids=self.pids), calls / rate, Opened)
        if opened.failures:
            raise BenchFailed(f"{self.name}: calls failed: {opened.failures}")
        return opened

    def talk(self, seconds: float) -> Talked | None:
        """None when so much was lost that its cost says nothing; `tell` says why."""
        talked = self._ask(Order(seconds=seconds, pids=self.pids), seconds, Talked)
        doubts = self._doubts.setdefault(talked.calls, Doubts())
        doubts.late = max(doubts.late, talked.late / talked.sent)
        doubts.lost = max(doubts.lost, talked.lost / talked.sent)
        doubts.changed = max(doubts.changed, 1 - talked.checked / talked.to_check)
        doubts.waited = max(doubts.waited, min(1.0, talked.usage[self.process].waited / talked.seconds))
        doubts.busy = max(doubts.busy, talked.usage[self.process].cpu / talked.seconds)
        doubts.left_out += talked.received < WORTHLESS * talked.sent
        return None if talked.received < WORTHLESS * talked.sent else talked

    def tell(self, section: Section) -> None:
        """What makes figures of rounds less than they should be, if anything."""
        for calls, doubts in self._doubts.items():
            for sentence in doubts.sentences():
                section.note(f"{self.name}, {calls} calls: {sentence}")

    def close(self) -> Closed:
        return self._ask(Order(close=True, url=self.url, pids=self.pids), 0.0, Closed)

    def _ask(self, order: Order, seconds: float, answer: type[Answer]) -> Answer:
        return msgspec.convert(self._callers.ask(msgspec.to_builtins(order), seconds + MORE), answer)


class Servers:
    """Starts parties, all on one CPU, their callers and our other processes on another; what is missing is noted."""

    def __init__(self, stack: ExitStack, section: Section, folder: Path) -> None:
        """`stack` ends them all, `folder` is for what is compiled."""
        self._stack = stack
        self._section = section
        self._folder = folder
        cpus = measuring_cpus()
        self.cpu: int | None = None if cpus is None else cpus[0]
        self.other: int | None = None if cpus is None else cpus[1]
        if cpus is None:
            section.note("one CPU only: the callers share it with what is measured")

    def direct(self) -> Party:
        """Our transceiver alone, with the echo inside."""
        transceiver = start_transceiver(self._stack, self.cpu, **NO_LIMITS)
        return self._party(DIRECT, str(transceiver.bound["http"][0]), {"transceiver": transceiver.pid})

    def relayed(self) -> Party:
        stack = self._start_stack("internal:echo")
        return self._party(RELAYED, stack.url, stack.pids)

    def separate(self) -> Party:
        stack = self._start_stack("echo")
        return self._party(SEPARATE, stack.url, stack.pids)

    def pion(self) -> Party | None:
        programs = build_pion()
        if programs is None:
            self._section.note(f"{why_no_go()}: measured without {PION}")
            return None
        self._section.note(
            f"{PION} is github.com/pion/webrtc {programs.version}, GOMAXPROCS=1, one socket for all calls"
        )
        child = self._stack.enter_context(programs.start_echo(self.cpu))
        return self._party(PION, str(child.bound["http"][0]), {"pion": child.pid}, is_reference=True)

    def aiortc(self, kind: str) -> Party:
        """`passing` or `coding`, as `bench.reference.aiortc_echo` says."""
        name = PASSING if kind == "passing" else CODING
        command = python("-m", "bench.reference.aiortc_echo", kind)
        child = self._stack.enter_context(Child(name, command, clean_environment(), cpu=self.cpu))
        return self._party(name, str(child.bound["http"][0]), {"aiortc": child.pid}, is_reference=True)

    def c_echo(self, calls: int) -> Party | None:
        """With its calls: they need no set-up."""
        library = compile_echo(self._folder)
        if library is None:
            self._section.note("no C compiler here: measured without the echo in C")
            return None
        callers = self._callers(C_ECHO)
        table = callers.ask(msgspec.to_builtins(Order(preset=calls)), MORE)["table"]
        child = self._stack.enter_context(start_echo(library, bytes.fromhex(table), self.cpu))
        callers.ask(msgspec.to_builtins(Order(target=child.bound["udp"])), MORE)
        return Party(C_ECHO, "", {"echo": child.pid}, callers, is_reference=True)

    def _start_stack(self, agent: str) -> OurStack:
        return start_stack(self._stack, agent=agent, transceiver_cpu=self.cpu, other_cpu=self.other, **NO_LIMITS)

    def _callers(self, name: str) -> Child:
        return self._stack.enter_context(
            Child(f"the callers of {name}", python("-m", "bench.caller"), clean_environment(), cpu=self.other)
        )

    def _party(self, name: str, url: str, pids: dict[str, int], *, is_reference: bool = False) -> Party:
        return Party(name, url, pids, self._callers(name), is_reference=is_reference)

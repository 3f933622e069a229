"""`just bench relay`: CPU time of the real relay process for each packet it forwards, beside a forwarder in C.

1. The relay starts as `just up` starts it; the reference forwarders start beside it, all on one CPU. Only one is ever given
   work; the others sleep. 2. A generator for each of them (`bench.generator`) on another CPU opens the flows. 3. Rounds are
interleaved: each load goes to each of them in turn, and then again.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.figures import Section
from bench.machine import measuring_cpus
from bench.processes import Child, python
from bench.progress import Progress
from bench.reference.forwarder import compile_forwarder, start_forwarder
from bench.wiring import start_relay

__all__ = ["RelayOptions", "measure_relay"]

# Implementation constants
ROUND_LIMIT = 30.0  # seconds for an answer of the generator
RELAY, C_BUNDLING, C_PLAIN = "relay", "C, bundling, no tag", "C, a datagram each"
UNIT = "CPU µs/packet"
KEPT_UP = 0.98


@dataclass(frozen=True, slots=True)
class RelayOptions:
    flows: tuple[int, ...]
    rounds: int
    seconds: float
    """Of each round, load and subject."""
    rate: float


@dataclass(frozen=True, slots=True)
class Load:
    what: str
    flows: int
    order: dict[str, object]
    rate: float = 0.0
    """Packets per second that are wanted; 0: as many as go."""


def measure_relay(options: RelayOptions, progress: Progress) -> Section:
    """Raises BenchFailed."""
    section = Section(title="relay: 160-byte packets")
    cpus = measuring_cpus()
    cpu, other = cpus if cpus is not None else (None, None)
    if cpus is None:
        section.note("one CPU only: the generator shares it with what is measured")
    loads, doubts = _loads(options), Doubts()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        program = compile_forwarder(folder)
        if program is None:
            section.note("no C compiler here: measured without the reference forwarder, so there are no ratios")
        relay, environ = start_relay(stack, cpu)
        subjects: dict[str, dict[int, Child]] = {RELAY: {}, C_BUNDLING: {}, C_PLAIN: {}}
        for flows in options.flows:
            progress.say(f"opening {flows} flows")
            for name, by_flows in subjects.items():
                if name != RELAY and program is None:
                    continue
                generator = Child("generator", python("-m", "bench.generator", str(flows)), environ, cpu=other)
                by_flows[flows] = stack.enter_context(generator)
                forwarder = relay
                if name != RELAY and program is not None:
                    framing = "trunk" if name == C_BUNDLING else "plain"
                    table = bytes.fromhex(generator.bound[framing])
                    forwarder = stack.enter_context(start_forwarder(program, framing, table, cpu))
                generator.ask(_target(forwarder, trunk=name != C_PLAIN, tokens=name == RELAY), ROUND_LIMIT)
        for number in range(options.rounds):
            for load in loads:
                for name, by_flows in subjects.items():
                    if load.flows in by_flows:
                        progress.say(f"round {number + 1} of {options.rounds}: {load.what}, {name}")
                        counts = by_flows[load.flows].ask(load.order, ROUND_LIMIT + options.seconds)
                        doubts.look(load, name, counts)
                        if received := counts["received"]:
                            cost = counts["cpu_ns"] / received / 1000
                            section.add(load.what, name, UNIT, cost, is_reference=name != RELAY)
    doubts.tell(section, options.rate)
    return section


def _loads(options: RelayOptions) -> Sequence[Load]:
    loads = []
    for flows in options.flows:
        for words, both in (("client → transceiver", False), ("both ways", True)):
            order = {"load": "backlog", "both_ways": both, "seconds": options.seconds}
            loads.append(Load(f"{words}, {flows} flows, saturated", flows, order))
    flows = max(options.flows)
    order = {"load": "paced", "both_ways": True, "seconds": options.seconds, "rate": options.rate}
    loads.append(Load(f"both ways, {flows} flows, {options.rate:g} packets/s", flows, order, options.rate))
    return loads


def _target(forwarder: Child, *, trunk: bool, tokens: bool) -> dict[str, object]:
    return {
        "pid": forwarder.worker_pid,
        "listen": forwarder.bound["listen"][0],
        "trunk_address": forwarder.bound["trunk"],
        "trunk": trunk,
        "tokens": tokens,
    }


class Doubts:
    """What makes figures less than they should be, over all rounds: a sentence for each subject, if any."""

    def __init__(self) -> None:
        self._sent: Counter[str] = Counter()
        self._received: Counter[str] = Counter()
        self._slowest: dict[str, float] = {}
        self._late: dict[str, float] = {}

    def look(self, load: Load, name: str, counts: dict[str, Any]) -> None:
        sent, received = counts["sent"], counts["received"]
        self._sent[name] += sent
        self._received[name] += received
        if load.rate:
            rate = received / (counts["wall_ns"] / 1e9)
            if rate < KEPT_UP * load.rate:
                self._slowest[name] = min(rate, self._slowest.get(name, rate))
            self._late[name] = max(counts["late"] / sent, self._late.get(name, 0.0))

    def tell(self, section: Section, rate: float) -> None:
        for name, sent in self._sent.items():
            if lost := sent - self._received[name]:
                section.note(f"{name}: {lost} of {sent} packets did not arrive in time and are not counted")
        for name, slowest in self._slowest.items():
            section.note(f"the generator did not keep up with {rate:g} packets/s for {name}: {slowest:.0f} in a round")
        for name, share in self._late.items():
            if share > 1 - KEPT_UP:
                section.note(
                    f"the generator was late with up to {share:.0%} of the paced packets of a round for {name}"
                )

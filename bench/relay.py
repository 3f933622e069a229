"""`just bench relay`: CPU time of the real relay for each packet it forwards, beside forwarders in C and nginx.

1. Relays start as `just up` starts them, with the default settings and with others; the references start beside them, all on
   one CPU. Only one is ever given work; the others sleep. 2. A generator for each of them (`bench.generator`) on another CPU
   opens the flows. 3. Rounds are interleaved: each load goes to each of them in turn, and then again.

What a relay survives (`measure_survival`): numbered datagrams pass while it is upgraded, and while its worker is killed.
What its flow table costs (`measure_table`): by itself, with a million flows.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from bench.figures import Section
from bench.flowtable import FlowTableFigures
from bench.handover import Traffic
from bench.machine import measuring_cpus
from bench.processes import ROOT, BenchFailed, Child, clean_environment, python
from bench.progress import Progress
from bench.reference.forwarder import compile_forwarder, start_forwarder
from bench.reference.nginx import NGINX, find_nginx, start_nginx
from bench.wiring import start_relay
from protocol.routing import RoutingConfig
from relay.host import STEADY
from service.config import load

__all__ = ["BAR_FLOWS", "BAR_RATE", "RelayOptions", "measure_relay", "measure_survival", "measure_table"]

# Implementation constants
BAR_FLOWS, BAR_RATE = 1000, 20_000  # of the runs that the bars are about
ROUND_LIMIT = 30.0  # seconds for an answer of the generator
RELAY, JUMBO, SINGLE, GREEDY = "relay", "relay, jumbo trunk", "relay, no bundling", "relay, no latency budget"
C_BUNDLING, C_JUMBO, C_PLAIN = "C, bundling, no tag", "C, jumbo trunk, no tag", "C, a datagram each"
MTU, JUMBO_MTU = 1452, 8952
SETTINGS: Mapping[str, dict[str, str]] = {
    RELAY: {},
    JUMBO: {"ANTIPHON_ROUTING_TRUNK_MTU": str(JUMBO_MTU)},
    SINGLE: {"ANTIPHON_ROUTING_TRUNK_MTU": "0"},
    GREEDY: {"ANTIPHON_RELAY_LATENCY_BUDGET_US": "0"},
}
SATURATED = (RELAY, JUMBO, SINGLE, C_BUNDLING, C_JUMBO, C_PLAIN, NGINX)
PACED = (RELAY, GREEDY, C_PLAIN, NGINX)
UNIT = "CPU µs/packet"
KEPT_UP = 0.98
UPGRADE_RATE, CALM = 4000.0, 0.3
UPGRADE_LIMIT, TABLE_LIMIT = 30.0, 240.0  # seconds


@dataclass(frozen=True, slots=True)
class RelayOptions:
    flows: tuple[int, ...]
    rounds: int
    seconds: float
    """Of each round, load and subject."""
    rate: float
    upgrades: int
    kills: int
    table_flows: int


@dataclass(frozen=True, slots=True)
class Load:
    what: str
    flows: int
    order: dict[str, object]
    subjects: tuple[str, ...]
    rate: float = 0.0
    """Packets per second that are wanted; 0: as many as go."""


class Subject:
    """A forwarder and the generators that drive it, by flows."""

    def __init__(self, name: str, is_reference: bool) -> None:
        self.name = name
        self.is_reference = is_reference
        self.generators: dict[int, Child] = {}


def measure_relay(options: RelayOptions, progress: Progress) -> Section:
    """Raises BenchFailed."""
    section = Section(title="relay: 160-byte packets")
    if measuring_cpus() is None:
        section.note("one CPU only: the generator shares it with what is measured")
    loads, doubts = _loads(options), Doubts()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        subjects = list(_subjects(stack, folder, section, options, progress))
        for number in range(options.rounds):
            for load in loads:
                for subject in subjects:
                    if subject.name in load.subjects:
                        progress.say(f"round {number + 1} of {options.rounds}: {load.what}, {subject.name}")
                        _measure(section, load, subject, doubts, options.seconds)
    for load in loads:
        _hold(section, load)
    doubts.tell(section, options.rate)
    return section


def _measure(section: Section, load: Load, subject: Subject, doubts: Doubts, seconds: float) -> None:
    counts = subject.generators[load.flows].ask(load.order, ROUND_LIMIT + seconds)
    doubts.look(load, subject.name, counts)
    received = counts["received"]
    if not received:
        return
    cost, own = counts["cpu_ns"] / received / 1000, counts["own_ns"] / received / 1000
    section.add(load.what, subject.name, UNIT, cost, own=own, is_reference=subject.is_reference)
    if load.rate:
        trip = counts["trip_us"] / 1000
        section.add(f"{load.what}: one way, p50", subject.name, "ms", trip, is_reference=subject.is_reference)
        if subject.name == C_PLAIN and (ours := section.find(f"{load.what}: one way, p50", RELAY)) is not None:
            section.add(f"{load.what}: added p50", RELAY, "ms", ours.rounds[-1] - trip)


def _hold(section: Section, load: Load) -> None:
    unlike = "" if load.flows == BAR_FLOWS else f"the bar is of {BAR_FLOWS} flows"
    if load.rate:
        if load.rate != BAR_RATE:
            unlike = f"the bar is of {BAR_RATE} packets/s"
        section.hold(load.what, RELAY, 0.75, to=C_PLAIN, unlike=unlike)
        section.hold(f"{load.what}: added p50", RELAY, 0.25, unlike=unlike)
        return
    section.hold(load.what, RELAY, 0.70 if load.order["both_ways"] else 0.35, to=C_PLAIN, unlike=unlike)
    section.hold(load.what, JUMBO, 0.70 if load.order["both_ways"] else 0.35, to=C_PLAIN, unlike=unlike)
    section.hold(load.what, SINGLE, 1.10, to=C_PLAIN, unlike=unlike)
    section.hold(load.what, SINGLE, 0.95, to=NGINX, unlike=unlike)


def _subjects(
    stack: ExitStack, folder: Path, section: Section, options: RelayOptions, progress: Progress
) -> Iterator[Subject]:
    cpu, other = measuring_cpus() or (None, None)
    environ: dict[str, str] = {}
    for name, settings in SETTINGS.items():
        relay, environ = start_relay(stack, cpu, **settings)
        subject = Subject(name, is_reference=False)
        for flows in options.flows:
            progress.say(f"{name}: opening {flows} flows")
            generator = _generator(stack, flows, environ, other)
            generator.ask(_target(relay, "trunk", tokens=True), ROUND_LIMIT)
            subject.generators[flows] = generator
        yield subject
    program = compile_forwarder(folder)
    if program is None:
        section.note("no C compiler here: measured without the forwarders in C")
    else:
        for name, mtu in ((C_BUNDLING, MTU), (C_JUMBO, JUMBO_MTU), (C_PLAIN, 0)):
            subject, framing = Subject(name, is_reference=True), "trunk" if mtu else "plain"
            for flows in options.flows:
                generator = _generator(stack, flows, {**environ, "ANTIPHON_ROUTING_TRUNK_MTU": str(mtu)}, other)
                table = bytes.fromhex(generator.bound[framing])
                forwarder = stack.enter_context(start_forwarder(program, mtu, table, cpu))
                generator.ask(_target(forwarder, framing), ROUND_LIMIT)
                subject.generators[flows] = generator
            yield subject
    if find_nginx() is None:
        section.note("no nginx with its stream module here: measured without it")
        return
    subject = Subject(NGINX, is_reference=True)
    for flows in options.flows:
        progress.say(f"{NGINX}: opening {flows} sessions")
        generator = _generator(stack, flows, environ, other)
        nginx = stack.enter_context(start_nginx(generator.bound["server"], folder, cpu))
        generator.ask(_target(nginx, "sessions"), ROUND_LIMIT)
        subject.generators[flows] = generator
    yield subject


def _generator(stack: ExitStack, flows: int, environ: Mapping[str, str], cpu: int | None) -> Child:
    return stack.enter_context(Child("generator", python("-m", "bench.generator", str(flows)), environ, cpu=cpu))


def _target(forwarder: Child, speaks: str, *, tokens: bool = False) -> dict[str, object]:
    return {
        "pid": forwarder.worker_pid,
        "listen": forwarder.bound["listen"][0],
        "speaks": speaks,
        "trunk_address": forwarder.bound.get("trunk", ""),
        "tokens": tokens,
    }


def _loads(options: RelayOptions) -> Sequence[Load]:
    loads = []
    for flows in options.flows:
        for words, both in (("client → transceiver", False), ("both ways", True)):
            order = {"load": "backlog", "both_ways": both, "seconds": options.seconds}
            loads.append(Load(f"{words}, {flows} flows, saturated", flows, order, SATURATED))
    flows = max(options.flows)
    order = {"load": "paced", "both_ways": True, "seconds": options.seconds, "rate": options.rate}
    loads.append(Load(f"both ways, {flows} flows, {options.rate:g} packets/s", flows, order, PACED, options.rate))
    return loads


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
            if (lost := sent - self._received[name]) > 0:
                section.note(f"{name}: {lost} of {sent} packets did not arrive in time and are not counted")
        for name, slowest in self._slowest.items():
            section.note(f"the generator did not keep up with {rate:g} packets/s for {name}: {slowest:.0f} in a round")
        for name, share in self._late.items():
            if share > 1 - KEPT_UP:
                section.note(
                    f"the generator was late with up to {share:.0%} of the paced packets of a round for {name}"
                )


# What it survives


def measure_survival(options: RelayOptions, progress: Progress) -> Section:
    """Raises BenchFailed."""
    section = Section(title=f"relay-survival: {UPGRADE_RATE:g} packets/s pass meanwhile")
    upgraded, killed = f"upgraded {options.upgrades} times", "its worker is killed"
    gone = "all of it is killed and started again"
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        settings = {"ANTIPHON_RELAY_CONTROL": f"{folder}/control", "ANTIPHON_LOG_LEVEL": "error"}  # it warns of kills
        relay, environ = start_relay(stack, None, **settings)
        environ = environ | {"ANTIPHON_RELAY_LISTEN": relay.bound["listen"][0]}
        routing = load({"routing": RoutingConfig}, None, environ)[RoutingConfig]
        with Traffic(relay.bound["listen"][0], routing, rate=UPGRADE_RATE) as traffic:
            for number in range(options.upgrades):
                progress.say(f"upgrade {number + 1} of {options.upgrades}")
                _upgrade(environ)
                time.sleep(CALM)
            passage = traffic.stop()
        section.add(f"{upgraded}: lost", RELAY, "packets", passage.lost)
        section.add(f"{upgraded}: passed", RELAY, "packets", passage.returned)
        section.add(f"{upgraded}: longest gap", RELAY, "ms", passage.longest_gap)
        for number in range(options.kills):
            progress.say(f"kill {number + 1} of {options.kills}")
            time.sleep(STEADY)  # who is killed young is forked later each time
            with Traffic(relay.bound["listen"][0], routing, rate=UPGRADE_RATE) as traffic:
                time.sleep(CALM)
                os.kill(relay.worker_pid, signal.SIGKILL)
                time.sleep(2 * CALM)
                passage = traffic.stop()
            section.add(f"{killed}: longest gap of a caller", RELAY, "ms", passage.longest_gap_of_one)
            section.add(f"{killed}: lost", RELAY, "packets", passage.lost)
        # Without an admin port, a relay says that it is ready when it serves.
        again = environ | {"ANTIPHON_RELAY_TRUNK": str(relay.bound["trunk"]), "ANTIPHON_RELAY_ADMIN": ""}
        for number in range(options.kills):
            progress.say(f"kill of the whole relay {number + 1} of {options.kills}")
            with Traffic(relay.bound["listen"][0], routing, rate=UPGRADE_RATE) as traffic:
                time.sleep(CALM)
                began = time.monotonic()
                relay.kill()
                relay = stack.enter_context(Child("relay", python("-m", "relay", "run"), again, cpu=None))
                back = 1000 * (time.monotonic() - began)
                time.sleep(2 * CALM)
                passage = traffic.stop()
            section.add(f"{gone}: back after", RELAY, "ms", back)
            section.add(f"{gone}: longest gap of a caller beyond that", RELAY, "ms", passage.longest_gap_of_one - back)
    section.hold(f"{upgraded}: lost", RELAY, 0)
    section.hold(f"{killed}: longest gap of a caller", RELAY, 100)
    section.hold(f"{gone}: longest gap of a caller beyond that", RELAY, 60)
    return section


def _upgrade(environ: Mapping[str, str]) -> None:
    done = subprocess.run(
        python("-m", "relay", "upgrade"),
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=UPGRADE_LIMIT,
        check=False,
    )
    if done.returncode:
        raise BenchFailed(f"the relay was not upgraded: {done.stderr.strip()}")


# Its flow table


def measure_table(options: RelayOptions, progress: Progress) -> Section:
    """Raises BenchFailed."""
    section = Section(title=f"flow-table: {options.table_flows} flows, by itself")
    progress.say(f"a table of {options.table_flows} flows")
    cpus = measuring_cpus()
    done = subprocess.run(
        python("-m", "bench.flowtable", str(options.table_flows)),
        cwd=ROOT,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        timeout=TABLE_LIMIT,
        preexec_fn=None if cpus is None else lambda: os.sched_setaffinity(0, {cpus[0]}),
        check=False,
    )
    if done.returncode:
        raise BenchFailed("the flow table could not be measured; its reason is above")
    figures = msgspec.json.decode(done.stdout, type=FlowTableFigures)
    look, way = "look up, take the target", "the whole way to the trunk but the system calls"
    for path, by_size in (("vector", figures.vector), ("scalar", figures.scalar)):
        for size, nanoseconds in by_size.items():
            section.add(look, f"{path}, batch {size}", "ns/packet", nanoseconds)
    section.add(way, "uplink, batch 256", "ns/packet", figures.uplink_256)
    section.add(
        "the whole way back but the system calls",
        "downlink, 256 frames of 32 datagrams",
        "ns/packet",
        figures.downlink_256,
    )
    section.add("memory", "flow table", "bytes/flow", figures.bytes_a_flow)
    for words, value in (
        ("longest operation while growing", figures.longest_operation_ms),
        ("longest slice of expiry", figures.longest_removal_slice_ms),
        ("taken over from a killed worker", figures.heal_ms),
    ):
        section.add(words, "flow table", "ms", value)
    section.hold(way, "uplink, batch 256", 120)
    section.hold("memory", "flow table", 128)
    section.hold("longest operation while growing", "flow table", 10)
    return section

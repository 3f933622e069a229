"""`just bench channel`: throughput, latency and CPU time of a data channel, beside aiortc's.

1. Two processes of ours and two of aiortc's: a client and a server each, with ICE, DTLS and SCTP between them over UDP on
loopback, the clients on one CPU and the servers on another. 2. Rounds are interleaved: the client sends messages of one
size as fast as its buffer takes them, and then one small message at a time, there and back. 3. Beside that, two
associations in one process with nothing between them: what SCTP alone costs.
"""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from dataclasses import dataclass

from bench.accounts import ProcessAccounts
from bench.figures import Section, percentile
from bench.machine import measuring_cpus
from bench.processes import BenchFailed, Child, clean_environment, python
from bench.progress import Progress

__all__ = ["ChannelOptions", "measure_channel"]

# Implementation constants
OURS, AIORTC = "ours", "aiortc"
MODULES = {OURS: "bench.channel_end", AIORTC: "bench.reference.aiortc_channel"}
SIZES = {100: "100 bytes", 1024: "1 KiB", 65536: "64 KiB"}
PING = 100
WARM = 0.3  # seconds: congestion windows open, caches fill
MORE = 30.0  # seconds that an order may take beyond what it was told


@dataclass(frozen=True, slots=True)
class ChannelOptions:
    rounds: int
    seconds: float


class Pair:
    """The client and the server of one stack, connected."""

    def __init__(self, stack: ExitStack, name: str) -> None:
        """Raises BenchFailed."""
        self.name = name
        self.is_reference = name != OURS
        cpus = measuring_cpus() or (None, None)
        self._ends = [
            stack.enter_context(
                Child(f"{name}, {role}", python("-m", MODULES[name], role), clean_environment(), cpu=cpu)
            )
            for role, cpu in zip(("client", "server"), cpus, strict=True)
        ]
        self._accounts = [ProcessAccounts(end.pid) for end in self._ends]
        client, server = self._ends
        offer = client.ask({"do": "offer"}, MORE)
        answer = server.ask({"do": "answer", **offer}, MORE)
        client.ask({"do": "connect", **answer}, MORE)
        client.ask({"do": "opened"}, MORE)

    def order(self, what: str, size: int, seconds: float) -> tuple[dict[str, object], float]:
        """What the client said, and the CPU seconds of both."""
        before = [accounts.cpu_ns() for accounts in self._accounts]
        said = self._ends[0].ask({"do": what, "size": size, "seconds": seconds}, seconds + MORE)
        after = [accounts.cpu_ns() for accounts in self._accounts]
        return said, (sum(after) - sum(before)) / 1e9


def measure_channel(options: ChannelOptions, progress: Progress) -> Section:
    """Raises BenchFailed."""
    section = Section(title="a data channel over DTLS on loopback, two processes")
    section.note("MB/s: more is better, so a ratio above 1 is ours; of all others less is better")
    with ExitStack() as stack:
        progress.say("connecting")
        pairs = [Pair(stack, name) for name in (OURS, AIORTC)]
        for number in range(options.rounds):
            progress.say(f"round {number + 1} of {options.rounds}")
            for size, words in SIZES.items():
                for pair in pairs:
                    pair.order("flood", size, WARM)
                    _add_flood(section, pair, size, words, options.seconds)
            for pair in pairs:
                _add_ping(section, pair, options.seconds)
            for size, words in SIZES.items():
                for pair in pairs:
                    said, _ = pair.order("cores", size, options.seconds / 2)
                    cost = float(str(said["cpu"])) * 1e6 / int(str(said["came"]))
                    what = f"SCTP alone, {words} a message"
                    section.add(what, pair.name, "CPU µs/message", cost, is_reference=pair.is_reference)
                    if "checksums" in said:
                        share = float(str(said["checksums"])) * 100
                        section.add(f"SCTP alone, {words} a message, CRC32c's part", pair.name, "%", share)
    return section


def _add_flood(section: Section, pair: Pair, size: int, words: str, seconds: float) -> None:
    said, cpu = pair.order("flood", size, seconds)
    came, took = int(str(said["came"])), float(str(said["seconds"]))
    if came != said["sent"]:
        raise BenchFailed(f"{pair.name}: {said['sent']} messages sent, {came} came")
    figures = {
        (f"one way, {words} a message", "MB/s"): size * came / took / 1e6,
        (f"one way, {words} a message, for each CPU second", "MB/CPU-s"): size * came / cpu / 1e6,
        (f"one way, {words} a message, both ends", "CPU µs/message"): cpu * 1e6 / came,
    }
    for (what, unit), value in figures.items():
        section.add(what, pair.name, unit, value, is_reference=pair.is_reference)


def _add_ping(section: Section, pair: Pair, seconds: float) -> None:
    said, cpu = pair.order("ping", PING, seconds)
    trips = said["trips"]
    assert isinstance(trips, list)
    what = f"there and back, {PING} bytes"
    for name, value in (("median", statistics.median(trips)), ("p99", percentile(trips, 0.99))):
        section.add(f"{what}, {name}", pair.name, "µs", value * 1e6, is_reference=pair.is_reference)
    cost = cpu * 1e6 / len(trips)
    section.add(f"{what}, both ends", pair.name, "CPU µs", cost, is_reference=pair.is_reference)

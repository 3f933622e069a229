"""Who serves calls, and how to have calls placed on them: what `bench transceiver` and `bench setup` share."""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass

import msgspec

from bench.caller import Order, Outcome
from bench.machine import measuring_cpus
from bench.processes import ROOT, BenchFailed, Child, clean_environment, python
from bench.wiring import start_stack

__all__ = ["CODING", "OURS", "PASSING", "Server", "place_calls_on", "start_servers"]

# Implementation constants
OURS, PASSING, CODING = "transceiver", "aiortc, passing Opus on", "aiortc, decoding and encoding"
MORE = 30.0  # seconds that a run of calls may take beyond what it was ordered to


@dataclass(frozen=True, slots=True)
class Server:
    name: str
    url: str
    pids: dict[str, int]
    """The process to compare is the first."""
    calls: int
    is_reference: bool

    @property
    def process(self) -> str:
        return next(iter(self.pids))


def start_servers(stack: ExitStack, *, calls: int, coding_calls: int) -> tuple[list[Server], int | None]:
    """Ours and the references, all idle; and the CPU for callers. `coding_calls` of 0: without the one that encodes."""
    cpu, other = measuring_cpus() or (None, None)
    ours = start_stack(stack, transceiver_cpu=cpu, other_cpu=other)
    servers = [Server(OURS, ours.url, ours.pids, calls, is_reference=False)]
    for name, kind, count in ((PASSING, "passing", calls), (CODING, "coding", coding_calls)):
        if count:
            command = python("-m", "bench.reference.aiortc_echo", kind)
            child = stack.enter_context(Child(name, command, clean_environment(), cpu=cpu))
            servers.append(Server(name, str(child.bound["http"][0]), {"aiortc": child.pid}, count, is_reference=True))
    return servers, other


def place_calls_on(server: Server, *, rate: float, seconds: float = 0.0, talk: float = 0.0, cpu: int | None) -> Outcome:
    """As `bench.caller.Order` says. Raises BenchFailed when a call failed: a figure of fewer calls would flatter."""
    order = Order(url=server.url, calls=server.calls, rate=rate, pids=server.pids, seconds=seconds, talk=talk)
    try:
        done = subprocess.run(
            python("-m", "bench.caller", msgspec.json.encode(order).decode()),
            cwd=ROOT,
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # progress of the load generator
            timeout=server.calls / rate + seconds + talk + MORE,
            preexec_fn=None if cpu is None else lambda: os.sched_setaffinity(0, {cpu}),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BenchFailed(f"{server.name}: the calls did not end") from None
    if done.returncode:
        raise BenchFailed(f"{server.name}: the callers failed with status {done.returncode}")
    outcome = msgspec.json.decode(done.stdout, type=Outcome)
    if outcome.failures:
        raise BenchFailed(f"{server.name}: calls failed: {outcome.failures}")
    if seconds and not outcome.window:
        raise BenchFailed(f"{server.name}: not all calls talked throughout the window")
    return outcome

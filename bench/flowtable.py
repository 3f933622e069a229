"""What the relay's flow table costs by itself: no socket, one process, as many flows as are asked for.

1. The table grows from nothing: every flow is opened by a check with a token and established by a reply, as in a relay.
   The longest single operation and the growth of the process's memory are noted.
2. Flows drawn at random are looked up, one by one and by the batch, and their target is taken, as the packet path does.
   Beside that, the whole way of a batch through `relay.uplink` and of one through `relay.gate` and `relay.downlink`: all that
   a relay does with 256 packets of 160 bytes but the system calls, heads and tags of the trunk's datagrams included.
3. A sweep that finds nothing, the mending of a table whose writer was killed, and a sweep that takes all flows out.

Times are CPU times of this thread, page faults included: what else runs on the machine is not counted as a pause, only as
what it does to the caches.
"""

from __future__ import annotations

import mmap
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from protocol.address import TransportAddress, pack_address
from protocol.routing import Frame, KeyRing, RoutingConfig, Trunk
from relay.config import RelayConfig
from relay.core import RelayCore
from relay.flows import FlowTable, Proposal
from relay.layout import SEQUENCE_WORD
from relay.sockets import TRUNK_SLOT
from udpio import ReceiveArena

__all__ = ["FlowTableFigures", "measure_flow_table"]

_TRANSCEIVERS = [pack_address(f"10.0.0.{host}", 5000) for host in range(1, 9)]
_MAX_PROBATIONARY = 4096
_PAGE = 4096
_IDLE = 120.0
_LOOKS = 200_000
_ROUTING = RoutingConfig(keys=("1:" + "5a" * 32,), trunk_keys=("a5" * 32,), prefix="10.0.0.0/8")


class FlowTableFigures(msgspec.Struct, frozen=True, kw_only=True):
    """`vector` and `scalar` by batch size: ns a packet for look-up and target."""

    flows: int
    vector: dict[int, float]
    scalar: dict[int, float]
    lookup_256: float  # ns a key, the look-up alone
    uplink_256: float  # ns a packet, all of relay.uplink
    downlink_256: float  # ns a frame, all of relay.gate and relay.downlink
    bytes_a_flow: float  # resident
    establish_us: float  # open and establish, on the average
    longest_operation_ms: float  # while growing
    longest_idle_slice_ms: float
    longest_removal_slice_ms: float
    heal_ms: float  # whole, after a kill in the middle of a change
    attach_ms: float  # after any other


def measure_flow_table(flows: int = 1_000_000, *, seed: int = 1) -> FlowTableFigures:
    """Takes about 20 s for a million flows."""
    source = np.random.default_rng(seed)
    # Addresses of all the IPv4 net, so that nothing about them helps; the lower two bytes are ingress 0.
    words = np.unique(source.integers(0, 1 << 48, flows + flows // 50, dtype=np.uint64) << np.uint64(16))[:flows]
    source.shuffle(words)
    keys = words.tolist()
    memory = mmap.mmap(-1, FlowTable.size(flows, _MAX_PROBATIONARY), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    table = FlowTable.create(
        memory, max_flows=flows, max_probationary=_MAX_PROBATIONARY, max_per_token=16, idle=_IDLE, seed=bytes(range(64))
    )
    resident = _resident()
    began = time.thread_time()
    longest = _grow(table, keys)
    establish_us = (time.thread_time() - began) / flows * 1e6
    resident = _resident() - resident
    assert table.established == flows
    vector = {size: _vector(table, words, size, source, touch=True) for size in (1, 4, 8, 16, 32, 64, 128, 256)}
    scalar = {size: _scalar(table, words, size, source) for size in (1, 16, 256)}
    lookup = _vector(table, words, 256, source, touch=False)
    uplink = _uplink(table, words, source)
    downlink = _downlink(table, words, source)
    idle = _longest_slice(table, 0.0)
    attach = _spent(lambda: FlowTable.attach(memory, max_per_token=16, idle=_IDLE))
    memoryview(memory).cast("Q")[SEQUENCE_WORD] += 1
    heal = _spent(lambda: FlowTable.attach(memory, max_per_token=16, idle=_IDLE))
    removal = _longest_slice(FlowTable.attach(memory, max_per_token=16, idle=_IDLE), 1e9)
    return FlowTableFigures(
        flows=flows,
        vector=vector,
        scalar=scalar,
        lookup_256=lookup,
        uplink_256=uplink,
        downlink_256=downlink,
        bytes_a_flow=resident / flows,
        establish_us=establish_us,
        longest_operation_ms=longest * 1e3,
        longest_idle_slice_ms=idle * 1e3,
        longest_removal_slice_ms=removal * 1e3,
        heal_ms=heal * 1e3,
        attach_ms=attach * 1e3,
    )


def _grow(table: FlowTable, keys: list[int]) -> float:
    """Seconds of the longest operation."""
    clock, longest = time.thread_time, 0.0
    for number, word in enumerate(keys):
        now, target = number * 1e-5, _TRANSCEIVERS[number & 7]
        key = (word, 0, 0)
        token = (number + 1) * 0x9E3779B97F4A7C15 & (1 << 64) - 1  # as evenly spread as a digest
        proposal = Proposal(target, token ^ 1, token, 4096, now + 10.0)
        began = clock()
        row = table.open(key, proposal, now)
        opened = clock()
        table.establish(row, target, now)
        ended = clock()
        longest = max(longest, opened - began, ended - opened)
    return longest


def _vector(
    table: FlowTable,
    words: np.ndarray[tuple[int], np.dtype[np.uint64]],
    size: int,
    source: np.random.Generator,
    *,
    touch: bool,
) -> float:
    batches = [words[source.integers(0, len(words), size)] for _ in range(max(200, _LOOKS // size // 4))]
    rows, targets = np.zeros(size, np.int64), np.zeros(size, np.uint16)
    lookup, target = table.lookup, table.columns.target
    lookup(batches[0], rows)
    began = time.thread_time()
    if touch:
        for batch in batches:
            lookup(batch, rows)
            target.take(rows, out=targets, mode="clip")
    else:
        for batch in batches:
            lookup(batch, rows)
    return (time.thread_time() - began) / len(batches) / size * 1e9


def _scalar(
    table: FlowTable, words: np.ndarray[tuple[int], np.dtype[np.uint64]], size: int, source: np.random.Generator
) -> float:
    batches = [words[source.integers(0, len(words), size)].tolist() for _ in range(max(200, _LOOKS // size))]
    find, target = table.find, table.cells.target
    began = time.thread_time()
    for batch in batches:
        for word in batch:
            _ = target[find(word)]
    return (time.thread_time() - began) / len(batches) / size * 1e9


def _uplink(table: FlowTable, words: np.ndarray[tuple[int], np.dtype[np.uint64]], source: np.random.Generator) -> float:
    """For eight transceivers, with the MTU of Ethernet."""
    core = _core(table)
    arena = ReceiveArena(256, 2048, socket.AF_INET)
    for index in range(256):
        arena.put(index, b"\x80\x6f" + bytes(158), _TRANSCEIVERS[0])
    arena.survey(256)
    uplink = core.uplink(arena, 0, socket.AF_INET)
    family = np.uint64(int.from_bytes(socket.AF_INET.to_bytes(2, sys.byteorder) + bytes(6), sys.byteorder))
    batches = [words[source.integers(0, len(words), 256)] + family for _ in range(_LOOKS // 256)]
    spent = 0.0
    for batch in batches:
        arena.names[:, 0] = batch
        began = time.thread_time()
        uplink.forward_untrusted(256, 1.0)
        spent += time.thread_time() - began
    assert core.frames_up == 256 * len(batches)
    return spent / len(batches) / 256 * 1e9


def _downlink(
    table: FlowTable, words: np.ndarray[tuple[int], np.dtype[np.uint64]], source: np.random.Generator
) -> float:
    """From eight transceivers to flows of theirs, with the MTU of Ethernet: eight frames a datagram, 32 datagrams a batch."""
    core, trunk = _core(table), Trunk.parse(_ROUTING)
    core.greeter.known.update(dict.fromkeys(_TRANSCEIVERS))
    arena = ReceiveArena(32, TRUNK_SLOT, socket.AF_INET)
    downlink = core.downlink(arena)
    rows = np.zeros(1024, np.int64)
    batches, spent = 100, 0.0
    for _ in range(batches):
        some = words[source.integers(0, len(words), 1024)]
        table.lookup(some, rows)
        targets = table.columns.target.take(rows)
        for slot in range(32):
            transceiver = _TRANSCEIVERS[slot % 8]
            theirs = some[targets == table.transceivers.numbers[transceiver]]
            frames = [
                Frame(TransportAddress(word.to_bytes(8, "little")[2:]), 0, b"\x80\x6f" + bytes(158))
                for word in theirs[8 * (slot // 8) :][:8].tolist()
            ]
            [datagram] = trunk.encode(frames, 1452)
            arena.put(slot, datagram, transceiver)
        arena.survey(32)
        began = time.thread_time()
        for _ in downlink.forward_untrusted(32, 1.0):
            pass
        spent += time.thread_time() - began
    assert core.frames_down == 256 * batches
    assert not core.drops + core.not_learned
    return spent / core.frames_down * 1e9


def _core(table: FlowTable) -> RelayCore:
    config = RelayConfig(batch_size=256)
    return RelayCore(config, KeyRing.parse(_ROUTING), Trunk.parse(_ROUTING), wall_time=time.time, flows=table)


def _longest_slice(table: FlowTable, now: float) -> float:
    longest, done = 0.0, False
    while not done:
        began = time.thread_time()
        done = table.expire(now)
        longest = max(longest, time.thread_time() - began)
    return longest


def _spent(work: Callable[[], object]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


if __name__ == "__main__":
    print(msgspec.json.format(msgspec.json.encode(measure_flow_table(*map(int, sys.argv[1:])))).decode())

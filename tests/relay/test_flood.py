"""A million hostile packets: the relay's memory stays what it was, each is accounted for, and a call beside them goes on."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from protocol.address import TransportAddress
from protocol.routing import Frame, Trunk

if TYPE_CHECKING:
    from tests.relay.conftest import Bench

MakeBench = Callable[..., "Bench"]

BATCH = 50
PACKETS = 1_000_000
HEAD = b"\x00\x01\x00\x38\x21\x12\xa4\x42"


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def stranger(source: random.Random) -> TransportAddress:
    return TransportAddress(source.randbytes(6) if source.random() < 0.8 else source.randbytes(18))


def check(ufrag: bytes, source: random.Random) -> bytes:
    """A Binding request with nothing in it but a USERNAME of 53 bytes."""
    return HEAD[:2] + b"\x00\x3c" + HEAD[4:] + source.randbytes(12) + b"\0\6\0\x35" + ufrag + b":abcd" + bytes(3)


def hostile_batches(bench: Bench, source: random.Random) -> Iterator[list[tuple[memoryview, TransportAddress]]]:
    """From ever new addresses: forged tokens, good ones, media without a flow, noise; and one address that tries them all."""
    good = [bench.token().encode() for _ in range(500)]
    genuine = base64.b64decode(good[0])
    lone = stranger(source)
    while True:
        batch = []
        for number in range(BATCH):
            match source.randrange(5):
                case 0:
                    data = check(base64.b64encode(genuine[:3] + source.randbytes(33)), source)
                case 1:
                    data = check(source.choice(good), source)
                case 2:
                    data = check(base64.b64encode(source.randbytes(36)), source)
                case 3:
                    data = b"\x80\x6f" + source.randbytes(30)
                case _:
                    data = source.randbytes(source.randrange(80))
            batch.append((memoryview(data), lone if number == 7 else stranger(source)))
        yield batch


@pytest.mark.thorough
def test_a_million_hostile_packets_leave_memory_flat_and_are_all_accounted_for(make_bench: MakeBench):
    source = random.Random(11)
    bench = make_bench(max_flows=20_000, max_probationary=2000)
    bench.establish()
    core = bench.core
    passed, sent, before = core.frames_up, 0, 0
    for number, batch in enumerate(hostile_batches(bench, source)):
        bench.now += 0.002  # 25 000 packets a second
        core.receive_clients_untrusted(batch, number & 1, bench.now)
        sent += len(batch)
        if number % 100 == 0:
            [datagram] = bench.trunk.encode([Frame(stranger(source), 0, b"\x01\x01answer")], 1452)
            forged = [datagram[:9] + source.randbytes(len(datagram) - 9), source.randbytes(60), datagram[:20]]
            bench.down_raw(*forged)
            assert bench.targets(bench.RTP) == [bench.A]
            passed += 1
            core.handle_timeout(bench.now)
        if sent == PACKETS // 5:
            before = resident()
        if sent == PACKETS:
            break
    from_trunk = sum(count for reason, count in core.drops.items() if reason.startswith("trunk_"))
    assert core.frames_up - passed + sum(core.drops.values()) - from_trunk == sent
    assert from_trunk == 3 * -(-sent // BATCH // 100)
    assert core.flows.established == 1
    assert core.flows.probationary <= 2000
    assert core.opened == core.flows.probationary + core.flows.evicted + core.flows.lapsed + 1
    assert resident() - before < 4 << 20


@pytest.mark.thorough
def test_a_flood_of_replies_for_clients_that_nobody_knows_fills_the_table_and_no_more(make_bench: MakeBench):
    """A transceiver out of its mind: the trunk's key is genuine, the clients are not."""
    source = random.Random(12)
    bench = make_bench(max_flows=20_000)
    bench.establish()
    trunk: Trunk = bench.trunk
    before = 0
    for number in range(10_000):
        frames = [Frame(TransportAddress(source.randbytes(6)), 0, b"\x80voice") for _ in range(30)]
        bench.down_raw(*trunk.encode(frames, 1452))
        bench.now += 0.001
        if number == 2000:
            before = resident()
    assert bench.core.flows.established == 20_000
    assert bench.core.not_learned["table_full"] == 300_000 - 19_999
    assert bench.core.frames_down == 300_000 + 1
    assert not bench.core.drops
    assert bench.targets(bench.RTP) == [bench.A]
    assert resident() - before < 4 << 20

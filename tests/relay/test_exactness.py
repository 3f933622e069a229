"""Every packet is accounted for, at any rate: sent = overflowed + forwarded + dropped by reason. Real sockets, no loop."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
import trio

from protocol.address import TransportAddress, pack_address
from protocol.routing import Frame, RoutingConfig, TrunkHead, TrunkKind
from relay.index import flow_words
from relay.pump import _back, _front
from relay.service import _back as _back_plainly
from relay.service import _front as _front_plainly
from udpio import BatchSocket, SocketOptions, bind_udp, is_batch_supported
from udpio.plain import PlainSocket

if TYPE_CHECKING:
    from tests.relay.conftest import Bench

pytestmark = pytest.mark.skipif(not is_batch_supported(), reason="no recvmmsg here")
MakeBench = Callable[..., "Bench"]
ROUTING = RoutingConfig(keys=("1:" + "5a" * 32,), trunk_keys=("a5" * 32,), prefix="127.0.0.0/8")
SMALL = 64 << 10  # bytes of receive buffer: a burst overflows it


def opened(**options: int) -> BatchSocket:
    chosen = SocketOptions(**options)
    return BatchSocket(bind_udp("127.0.0.1", 0, chosen), chosen)


@pytest.fixture
def sockets() -> Iterator[dict[str, BatchSocket]]:
    made = {
        "front": opened(batch_size=256, receive_buffer=SMALL),
        "back": opened(batch_size=64, slot_size=9216, receive_buffer=SMALL),
        "transceiver": opened(slot_size=9216, receive_buffer=SMALL),
        **{f"client {n}": opened(receive_buffer=SMALL) for n in range(4)},
    }
    yield made
    for sock in made.values():
        sock.close()


@pytest.mark.parametrize("few", [0, 1 << 30], ids=["arrays", "one by one"])
def test_client_packets_at_a_rate_that_overflows_the_socket(
    make_bench: MakeBench, sockets: dict[str, BatchSocket], monkeypatch: pytest.MonkeyPatch, few: int
):
    monkeypatch.setattr("relay.uplink.FEW", few)
    source = random.Random(3)
    bench = make_bench(ROUTING)
    front, back, transceiver = (sockets[name] for name in ("front", "back", "transceiver"))
    clients = [sock for name, sock in sockets.items() if name.startswith("client")]
    for client in clients[:3]:
        bench.core.flows.learn(flow_words(client.address, 0), transceiver.address, 0.0)
    uplink = bench.core.uplink(front.arena, 0, back.family)
    good = bench.token(transceiver.address)
    kinds = [
        *[b"\x80\x6f" + bytes(158)] * 6,
        *(b"\x80" + bytes(n) for n in (20, 800)),
        b"\x47foreign",
        b"",
        b"\x80" * 2100,
        bench.check(good),
        bench.check(good[:-3] + "AAA"),
        b"\x16\xfe\xfd" + bytes(50),
    ]
    sent = arrived = 0
    for turn in range(60):
        for client in clients:
            client.send_batch([(source.choice(kinds), front.address) for _ in range(source.choice((5, 200)))])
        while count := front.receive():
            if datagrams := uplink.forward_untrusted(count, 0.01 * turn):
                back.send(uplink.ring, datagrams)
            arrived += sum(len(bench.trunk.decode_untrusted(data)) for data, _ in transceiver.receive_batch())
        arrived += sum(len(bench.trunk.decode_untrusted(data)) for data, _ in transceiver.receive_batch())
    sent = sum(client.counters.datagrams_sent for client in clients)
    core, counters = bench.core, front.counters
    assert sent > 5000
    assert front.ask_overflow() > 0
    assert sent == counters.overflowed + counters.datagrams_received
    assert counters.datagrams_received == core.frames_up + sum(core.drops.values())
    assert core.drops["truncated"] == counters.truncated
    assert set(core.drops) >= {"foreign_protocol", "truncated", "no_flow", "probationary"}
    assert back.counters.send_errors == {}
    assert transceiver.ask_overflow() > 0 or arrived == core.frames_up
    assert transceiver.counters.datagrams_received + transceiver.counters.overflowed == back.counters.datagrams_sent


@pytest.mark.parametrize("few", [0, 1 << 30], ids=["arrays", "one by one"])
def test_trunk_frames_at_a_rate_that_overflows_the_socket(
    make_bench: MakeBench, sockets: dict[str, BatchSocket], monkeypatch: pytest.MonkeyPatch, few: int
):
    monkeypatch.setattr("relay.downlink.FEW", few)
    source = random.Random(4)
    bench = make_bench(ROUTING, max_flows=3)
    front, back, transceiver = (sockets[name] for name in ("front", "back", "transceiver"))
    clients = [sock for name, sock in sockets.items() if name.startswith("client")]
    downlink = bench.core.downlink(back.arena)
    nowhere = pack_address("127.0.0.1", 0)  # EINVAL
    bad = [
        b"\xc5",
        b"\x47foreign",
        bench.trunk.seal(TrunkHead(TrunkKind.FRAMES, False, 0, 1), b"\0\2" + nowhere, b"\x80"),
        bytes(10000),
    ]
    frames_of: dict[bytes, int] = {}

    def datagram() -> bytes:
        if source.random() < 0.1:
            return source.choice(bad)
        count = source.choice((1, 2, 8))
        to: list[TransportAddress] = [source.choice([nowhere, *[c.address for c in clients]]) for _ in range(count)]
        [made] = bench.trunk.encode([Frame(client, 0, b"\x80voice") for client in to], 1452)
        frames_of[made] = count
        return made

    delivered = heard = 0
    for turn in range(40):
        transceiver.send_batch([(datagram(), back.address) for _ in range(source.choice((3, 150)))])
        while count := back.receive():
            taken = [bytes(back.arena.payloads[i][: back.arena.cells[i]]) for i in range(count)]
            delivered += sum(frames_of.get(data, 0) for data in taken)
            for _, ring, datagrams in downlink.forward_untrusted(count, 0.01 * turn):
                front.send(ring, datagrams)
            heard += sum(len(client.receive_batch()) for client in clients)
    heard += sum(len(client.receive_batch()) for client in clients for _ in range(100))
    core = bench.core
    assert back.ask_overflow() > 0
    assert transceiver.counters.datagrams_sent == back.counters.overflowed + back.counters.datagrams_received
    assert core.frames_down == delivered
    refused = front.counters.send_errors
    assert set(refused) == {"EINVAL"}
    assert core.frames_down == front.counters.datagrams_sent + refused["EINVAL"]
    overflowed = sum(client.ask_overflow() for client in clients)
    assert front.counters.datagrams_sent == heard + overflowed
    assert core.not_learned["table_full"] > 100
    bad_ones = core.drops["trunk_truncated"] + core.drops["trunk_foreign"] + core.drops["trunk_length"]
    good_ones = back.counters.datagrams_received - bad_ones - core.drops["truncated"]
    assert core.drops["truncated"] == back.counters.truncated
    assert sum(core.drops.values()) == bad_ones + core.drops["truncated"]
    assert good_ones > 500


@pytest.mark.parametrize("few", [0, 1 << 30], ids=["arrays", "one by one"])
def test_frames_in_trunk_datagrams_that_the_kernel_refuses_count_as_dropped(
    make_bench: MakeBench, sockets: dict[str, BatchSocket], monkeypatch: pytest.MonkeyPatch, few: int
):
    monkeypatch.setattr("relay.uplink.FEW", few)
    bench = make_bench(ROUTING)
    front, back, transceiver = (sockets[name] for name in ("front", "back", "transceiver"))
    good, bad = sockets["client 0"], sockets["client 1"]
    bench.core.flows.learn(flow_words(good.address, 0), transceiver.address, 0.0)
    bench.core.flows.learn(flow_words(bad.address, 0), pack_address("127.0.0.1", 0), 0.0)  # EINVAL
    turn = _front(bench.core, front, 0, back)
    for _ in range(3):
        for _ in range(20):
            good.send_batch([(b"\x80voice", front.address)])
            bad.send_batch([(b"\x80voice" * 40, front.address)])
        turn()
    core = bench.core
    assert set(back.counters.send_errors) == {"EINVAL"}
    assert core.frames_up == 60
    assert core.drops == {"trunk_refused": 60}
    assert sum(len(bench.trunk.decode_untrusted(data)) for data, _ in transceiver.receive_batch()) == 60


def test_frames_for_clients_whom_the_kernel_does_not_reach_count_as_dropped(
    make_bench: MakeBench, sockets: dict[str, BatchSocket]
):
    bench = make_bench(ROUTING)
    front, back, transceiver = (sockets[name] for name in ("front", "back", "transceiver"))
    good, bad = sockets["client 0"].address, pack_address("127.0.0.1", 0)  # EINVAL
    turn = _back(bench.core, back, [front])
    for to in [good, bad, bad], [good] * 40 + [bad] * 20:
        for datagram in bench.trunk.encode([Frame(client, 0, b"\x80voice") for client in to], 1452):
            transceiver.send_batch([(datagram, back.address)])
        turn()
    assert bench.core.frames_down == front.counters.datagrams_sent == 41
    assert bench.core.drops == {"client_refused": 22}


async def test_without_recvmmsg_what_the_kernel_refuses_counts_as_dropped_too(make_bench: MakeBench):
    bench = make_bench(ROUTING)
    core, options = bench.core, SocketOptions()
    front, back, good, bad = (PlainSocket(bind_udp("127.0.0.1", 0, options), options) for _ in range(4))
    nowhere = pack_address("127.0.0.1", 0)  # EINVAL
    core.flows.learn(flow_words(good.address, 0), good.address, 0.0)
    core.flows.learn(flow_words(bad.address, 0), nowhere, 0.0)
    for client in good, bad:
        client.send_batch([(b"\x80voice" * 10, front.address)] * 20)
    [datagram] = bench.trunk.encode([Frame(client, 0, b"\x80voice") for client in (good.address, nowhere)], 1452)
    good.send_batch([(datagram, back.address)])
    with trio.move_on_after(0.2):
        await _front_plainly(core, front, 0, back)
    with trio.move_on_after(0.2):
        await _back_plainly(core, back, [front] * len(core.config.listen))
    assert (core.frames_up, core.frames_down) == (20, 1)
    assert core.drops == {"trunk_refused": 20, "client_refused": 1}
    for sock in front, back, good, bad:
        sock.close()

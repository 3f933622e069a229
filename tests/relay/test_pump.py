"""The pump over real sockets: shares, idleness, floods, its end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
import trio

from protocol.routing import Frame, RoutingConfig
from relay.index import flow_words
from relay.pump import BUDGET, _back, _front, pump
from relay.service import serve
from udpio import BatchSocket, PlainSocket, SocketOptions, bind_udp, is_batch_supported

if TYPE_CHECKING:
    from tests.relay.conftest import Bench

pytestmark = pytest.mark.skipif(not is_batch_supported(), reason="no recvmmsg here")
MakeBench = Callable[..., "Bench"]
ROUTING = RoutingConfig(keys=("1:" + "5a" * 32,), trunk_keys=("a5" * 32,), prefix="127.0.0.0/8")
VOICE = b"\x80voice"


class Rig:
    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.front, self.back, self.client, self.transceiver = self.sockets = [
            self._open(size) for size in (4, 4, 64, 64)
        ]
        bench.core.flows.learn(flow_words(self.client.address, 0), self.transceiver.address, 0.0)

    def _open(self, batch_size: int) -> BatchSocket:
        options = SocketOptions(batch_size=batch_size, slot_size=9216)
        return BatchSocket(bind_udp("127.0.0.1", 0, options), options)

    def speak(self, count: int) -> None:
        self.client.send_batch([(VOICE, self.front.address)] * count)

    def answer(self, count: int) -> None:
        [datagram] = self.bench.trunk.encode([Frame(self.client.address, 0, VOICE)], 1452)
        self.transceiver.send_batch([(datagram, self.back.address)] * count)

    def heard_by_transceiver(self) -> int:
        """Frames; the relay says hello to it, too."""
        return sum(self.bench.trunk.open_untrusted(data).frames for data, _ in self.transceiver.receive_batch())

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


@pytest.fixture
def rig(make_bench: MakeBench) -> Iterator[Rig]:
    made = Rig(make_bench(ROUTING))
    yield made
    made.close()


def test_a_socket_with_more_than_its_share_gives_way_and_says_so(rig: Rig):
    up = _front(rig.bench.core, rig.front, 0, rig.back)
    down = _back(rig.bench.core, rig.back, [rig.front])
    for turn, fill in ((up, rig.speak), (down, rig.answer)):
        fill(4 * BUDGET + 6)
        assert turn() == -4 * BUDGET
        assert turn() == 6
        assert turn() == 0


@pytest.mark.parametrize("budget", [0.0, 200e-6])
async def test_packets_pass_one_by_one_and_in_crowds(rig: Rig, budget: float):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump, rig.bench.core, [rig.front], rig.back, budget)
        for crowd in (1, 1, 3, 40, 1):
            rig.speak(crowd)
            rig.answer(crowd)
            up = down = 0
            with trio.fail_after(5):
                while up < crowd or down < crowd:
                    await trio.sleep(0.001)
                    up += rig.heard_by_transceiver()
                    down += len(rig.client.receive_batch())
            assert (up, down) == (crowd, crowd)
        nursery.cancel_scope.cancel()


async def test_a_flood_leaves_other_tasks_and_the_other_direction_their_turns_and_can_be_ended(rig: Rig):
    stop = threading.Event()

    def flood() -> None:
        while not stop.is_set():
            rig.speak(64)

    turns = answers = 0
    thread = threading.Thread(target=flood)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump, rig.bench.core, [rig.front], rig.back, 200e-6)
            thread.start()
            try:
                while turns < 10 or answers < 10:
                    rig.answer(1)
                    await trio.sleep(0.001)
                    turns += 1
                    answers += len(rig.client.receive_batch())
                    rig.heard_by_transceiver()
                nursery.cancel_scope.cancel()
            finally:
                stop.set()
                thread.join()
    core = rig.bench.core
    counters = rig.front.counters
    assert counters.datagrams_received == core.frames_up + sum(core.drops.values())  # it stopped between two batches


async def test_a_system_without_recvmmsg_forwards_datagram_by_datagram(make_bench: MakeBench):
    bench = make_bench(ROUTING, listen=("127.0.0.1:1",))
    front, back, client, transceiver = sockets = [
        PlainSocket(bind_udp("127.0.0.1", 0, SocketOptions()), SocketOptions()) for _ in range(4)
    ]
    bench.core.flows.learn(flow_words(client.address, 0), transceiver.address, 0.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, bench.core, [front], back, {"listen": front, "trunk": back}, lambda: None)
        client.send_batch([(VOICE, front.address)] * 3)
        [answer] = bench.trunk.encode([Frame(client.address, 0, VOICE)] * 2, 1452)
        transceiver.send_batch([(answer, back.address)])
        up = down = 0
        with trio.fail_after(5):
            while up < 3 or down < 2:
                await trio.sleep(0.001)
                up += sum(bench.trunk.open_untrusted(data).frames for data, _ in transceiver.receive_batch())
                down += len(client.receive_batch())
        assert (up, down) == (3, 2)
        nursery.cancel_scope.cancel()
    for sock in sockets:
        sock.close()

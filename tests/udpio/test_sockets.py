"""Every implementation keeps the same promises, on real loopback where it is a real socket."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import trio
import trio.testing

from protocol.address import pack_address, unpack_address
from udpio import BatchSocket, MemoryNetwork, PlainSocket, SocketOptions, UdpSocket, bind_udp, open_udp

Open = Callable[..., UdpSocket]
KINDS = ["batch", "plain", "memory"]
REAL = {"batch": BatchSocket, "plain": PlainSocket}


class Opener:
    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._network = MemoryNetwork()
        self._opened: list[UdpSocket] = []

    def __call__(self, host: str = "127.0.0.1", **options: int) -> UdpSocket:
        if self._kind == "memory":
            found: UdpSocket = self._network.open(host, batch_size=options.get("batch_size", 64))
        else:
            chosen = SocketOptions(**options)
            found = REAL[self._kind](bind_udp(host, 0, chosen), chosen)
        self._opened.append(found)
        return found

    def close(self) -> None:
        for opened in self._opened:
            opened.close()


@pytest.fixture(params=KINDS)
def opened(request: pytest.FixtureRequest) -> Iterator[Opener]:
    opener = Opener(request.param)
    yield opener
    opener.close()


@pytest.fixture(params=sorted(REAL))
def opened_real(request: pytest.FixtureRequest) -> Iterator[Opener]:
    opener = Opener(request.param)
    yield opener
    opener.close()


async def receive(sock: UdpSocket, count: int) -> list[tuple[bytes, bytes]]:
    got: list[tuple[bytes, bytes]] = []
    with trio.fail_after(2):
        while len(got) < count:
            await sock.wait_readable()
            got += [(bytes(data), source) for data, source in sock.receive_batch()]
    return got


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_datagrams_arrive_whole_in_order_with_their_source(opened: Opener, host: str):
    a, b = opened(host), opened(host)
    sent = [bytes([n]) * size for n, size in enumerate((1, 0, 160, 1200, 2048))]
    assert a.send_batch([(data, b.address) for data in sent]) == 5
    assert await receive(b, 5) == [(data, a.address) for data in sent]
    assert a.counters.datagrams_sent == b.counters.datagrams_received == 5
    assert a.counters.bytes_sent == b.counters.bytes_received == sum(map(len, sent))


async def test_more_than_a_batch_is_sent_and_received_in_several(opened: Opener):
    a, b = opened(batch_size=16), opened(batch_size=16)
    assert a.send_batch([(n.to_bytes(2, "big"), b.address) for n in range(50)]) == 50
    await b.wait_readable()
    first = b.receive_batch()
    assert [int.from_bytes(data, "big") for data, _ in first] == list(range(16))
    rest = await receive(b, 34)
    assert [int.from_bytes(data, "big") for data, _ in rest] == list(range(16, 50))


async def test_an_empty_socket_gives_an_empty_batch_and_never_blocks(opened: Opener):
    assert opened().receive_batch() == []


async def test_memoryviews_can_be_sent_and_a_received_view_sent_on(opened: Opener):
    a, b, c = opened(), opened(), opened()
    a.send_batch([(memoryview(b"xxhelloxx")[2:7], b.address)])
    await b.wait_readable()
    b.send_batch([(data[1:], c.address) for data, _ in b.receive_batch()])
    assert await receive(c, 1) == [(b"ello", b.address)]


async def test_one_batch_reaches_many_destinations(opened: Opener):
    a, others = opened(), [opened() for _ in range(10)]
    a.send_batch([(bytes([i]), other.address) for i, other in enumerate(others)])
    for i, other in enumerate(others):
        assert await receive(other, 1) == [(bytes([i]), a.address)]


async def test_closing_wakes_who_waits(opened: Opener):
    sock, seen = opened(), []

    async def wait() -> None:
        try:
            await sock.wait_readable()
        except trio.ClosedResourceError:
            seen.append("closed")

    with trio.fail_after(2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            sock.close()
    assert seen == ["closed"]
    sock.close()
    assert sock.receive_batch() == []
    assert sock.send_batch([(b"x", sock.address)] * 3) == 0
    assert sock.counters.send_errors == {"EBADF": 3}


async def test_a_datagram_longer_than_a_slot_is_dropped_and_counted(opened_real: Opener):
    a, b = opened_real(), opened_real(slot_size=512)
    a.send_batch([(bytes(512), b.address), (bytes(513), b.address), (bytes(9000), b.address), (b"after", b.address)])
    assert [len(data) for data, _ in await receive(b, 2)] == [512, 5]
    assert b.counters.truncated == 2


async def test_an_impossible_datagram_is_counted_by_its_errno_and_the_others_still_leave(opened_real: Opener):
    a, b = opened_real(), opened_real()
    nowhere = pack_address("127.0.0.1", 0)
    broadcast = pack_address("255.255.255.255", 9)
    batch = [
        (b"1", b.address),
        (b"2", nowhere),
        (bytes(70000), b.address),
        (b"3", broadcast),
        (b"4", pack_address("::1", 9)),
        (b"5", b.address),
    ]
    assert a.send_batch(batch) == 2
    assert [data for data, _ in await receive(b, 2)] == [b"1", b"5"]
    errors = a.counters.send_errors
    assert sum(errors.values()) == 4
    assert errors["EMSGSIZE"] == errors["EAFNOSUPPORT"] == errors["EINVAL"] == 1
    assert errors["EACCES"] + errors["ENETUNREACH"] == 1
    assert a.counters.datagrams_sent == 2
    assert a.counters.bytes_sent == 2


async def test_a_dead_destination_is_never_an_error(opened_real: Opener):
    a, dead = opened_real(), opened_real()
    dead.close()
    for _ in range(5):
        assert a.send_batch([(b"x", dead.address)]) == 1
        assert a.receive_batch() == []
    assert not a.counters.send_errors
    assert not a.counters.receive_errors


async def test_a_dual_stack_socket_speaks_both_and_folds_ipv4(opened_real: Opener):
    both, v4, v6 = opened_real("::", dual_stack=True), opened_real("127.0.0.1"), opened_real("::1")
    port = unpack_address(both.address)[1]
    v4.send_batch([(b"four", pack_address("127.0.0.1", port))])
    v6.send_batch([(b"six", pack_address("::1", port))])
    got = dict(await receive(both, 2))
    assert got == {b"four": v4.address, b"six": v6.address}
    both.send_batch([(b"re four", v4.address), (b"re six", v6.address)])
    assert await receive(v4, 1) == [(b"re four", pack_address("127.0.0.1", port))]
    assert await receive(v6, 1) == [(b"re six", pack_address("::1", port))]


async def test_a_reused_port_is_shared_and_otherwise_refused(opened_real: Opener):
    first = opened_real(reuse_port=True)
    host, port = unpack_address(first.address)
    bind_udp(host, port, SocketOptions(reuse_port=True)).close()
    with pytest.raises(OSError, match="in use"):
        bind_udp(host, port, SocketOptions())


async def test_the_kernel_grants_the_buffers_that_its_limits_allow(opened_real: Opener):
    small = opened_real(receive_buffer=65536, send_buffer=131072)
    assert small.buffer_sizes == (65536, 131072)


async def test_open_udp_takes_the_batch_socket_here():
    sock = open_udp("127.0.0.1", 0)
    assert isinstance(sock, BatchSocket)
    sock.close()


async def test_memory_network_can_lose_what_a_test_wants_lost():
    network = MemoryNetwork(lambda source, destination, data: data != b"lost")
    a, b = network.open(), network.open()
    a.send_batch([(b"one", b.address), (b"lost", b.address), (b"two", b.address), (b"x", pack_address("10.0.0.1", 9))])
    assert [bytes(data) for data, _ in b.receive_batch()] == [b"one", b"two"]
    assert network.unreachable == 1

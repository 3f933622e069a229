"""Batches as arrays, on real loopback; what the kernel refuses, as it would say it."""

from __future__ import annotations

import ctypes
import errno
import socket
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from protocol.address import TransportAddress, pack_address
from udpio import BatchSocket, ReceiveArena, SendRing, SocketOptions, bind_udp, is_batch_supported, name_words

pytestmark = pytest.mark.skipif(not is_batch_supported(), reason="no recvmmsg here")

HOSTS = ["127.0.0.1", "::1"]


class Sockets:
    def __init__(self) -> None:
        self._opened: list[BatchSocket] = []

    def __call__(self, host: str, **options: int) -> BatchSocket:
        chosen = SocketOptions(**options)
        self._opened.append(BatchSocket(bind_udp(host, 0, chosen), chosen))
        return self._opened[-1]

    def close(self) -> None:
        for opened in self._opened:
            opened.close()


@pytest.fixture
def opened() -> Iterator[Sockets]:
    sockets = Sockets()
    yield sockets
    sockets.close()


class Pieces:
    """A ring of datagrams in several pieces, whose memory is kept as long as the ring."""

    def __init__(self, datagrams: Sequence[tuple[Sequence[bytes], TransportAddress]], family: int) -> None:
        self.ring = SendRing(len(datagrams), sum(len(pieces) for pieces, _ in datagrams) or 1, family)
        self._keep: list[object] = []
        at = 0
        for message, (pieces, to) in enumerate(datagrams):
            self.ring.names[message] = name_words(to, family)
            self.ring.aim(message, int(self.ring.name_addresses[message]), at, len(pieces))
            for piece in pieces:
                buffer = ctypes.create_string_buffer(piece, len(piece))
                self._keep.append(buffer)
                self.ring.vectors[at] = ctypes.addressof(buffer), len(piece)
                at += 1


@pytest.mark.parametrize("host", HOSTS)
def test_pieces_from_anywhere_leave_as_one_datagram_in_one_call(opened: Sockets, host: str):
    a, b, c = (opened(host) for _ in range(3))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    pieces = Pieces([((b"head", b"one", b"two"), b.address), ((b"x",), c.address), ((b"h", b""), b.address)], family)
    assert a.send(pieces.ring, 3) == 3
    assert [bytes(data) for data, _ in b.receive_batch()] == [b"headonetwo", b"h"]
    assert [bytes(data) for data, _ in c.receive_batch()] == [b"x"]
    assert (a.counters.datagrams_sent, a.counters.bytes_sent) == (3, 12)


@pytest.mark.parametrize("host", HOSTS)
def test_names_and_lengths_of_a_batch_are_arrays_and_cells_over_the_same_memory(opened: Sockets, host: str):
    b, senders = opened(host), [opened(host) for _ in range(5)]
    for size, sender in enumerate(senders):
        sender.send_batch([(bytes([size]) * size, b.address)])
    assert b.receive() == 5
    arena = b.arena
    words = [name_words(sender.address, arena.family) for sender in senders]
    assert [tuple(row) for row in arena.names[:5].tolist()] == words
    assert arena.name_cells[: 5 * len(words[0])].tolist() == [word for row in words for word in row]
    assert arena.lengths[:5].tolist() == arena.cells[:5].tolist() == list(range(5))
    assert [arena.address(i) for i in range(5)] == arena.addresses(5) == [sender.address for sender in senders]
    assert [bytes(arena.payloads[i][:i]) for i in range(5)] == [bytes([i]) * i for i in range(5)]
    assert [bytes(arena.slots[i, :i]) for i in range(5)] == [bytes([i]) * i for i in range(5)]
    assert arena.slot_addresses.tolist() == [arena.slots[i].ctypes.data for i in range(arena.count)]


def test_one_socket_of_both_families_hears_and_reaches_both(opened: Sockets):
    both, old, new = opened("::", dual_stack=True), opened("127.0.0.1"), opened("::1")
    port = int.from_bytes(both.address[:2], "big")
    old.send_batch([(b"old", pack_address("127.0.0.1", port))])
    new.send_batch([(b"new", pack_address("::1", port))])
    assert both.receive() == 2
    assert both.arena.addresses(2) == [old.address, new.address]
    assert [tuple(row) for row in both.arena.names[:2].tolist()] == [
        name_words(old.address, socket.AF_INET6),
        name_words(new.address, socket.AF_INET6),
    ]
    assert both.send(Pieces([((b"a", b"b"), old.address), ((b"c",), new.address)], socket.AF_INET6).ring, 2) == 2
    assert [bytes(data) for sock in (old, new) for data, _ in sock.receive_batch()] == [b"ab", b"c"]


@pytest.mark.parametrize("host", HOSTS)
def test_what_is_put_into_an_arena_is_as_if_received(host: str):
    arena = ReceiveArena(4, 100, socket.AF_INET6 if ":" in host else socket.AF_INET)
    addresses = [pack_address(host, 1000 + i) for i in range(4)]
    for i, address in enumerate(addresses):
        arena.put(i, bytes([i]) * 7, address)
    assert arena.addresses(4) == addresses
    assert arena.lengths.tolist() == [7] * 4
    assert arena.slots[:, 0].tolist() == [0, 1, 2, 3]


def test_a_name_of_the_other_family_is_refused():
    with pytest.raises(ValueError, match="IPv4 socket"):
        name_words(pack_address("::1", 5), socket.AF_INET)


def test_what_was_cut_is_seen_by_its_length_and_counted(opened: Sockets):
    a, b = opened("127.0.0.1"), opened("127.0.0.1", slot_size=100)
    a.send_batch([(bytes(size), b.address) for size in (100, 101, 2000, 3)])
    assert b.receive() == 4
    assert b.arena.is_cut
    assert b.arena.lengths[:4].tolist() == [100, 101, 2000, 3]
    assert (b.counters.truncated, b.counters.datagrams_received) == (2, 4)
    a.send_batch([(b"x", b.address)])
    assert b.receive() == 1
    assert not b.arena.is_cut


@pytest.mark.parametrize("count", [1, 3, 40])
def test_bytes_and_datagrams_are_counted_alike_for_small_and_large_batches(opened: Sockets, count: int):
    a, b = opened("127.0.0.1"), opened("127.0.0.1")
    a.send_batch([(bytes(10 + i), b.address) for i in range(count)])
    assert b.receive() == count
    assert b.counters.datagrams_received == a.counters.datagrams_sent == count
    assert b.counters.bytes_received == a.counters.bytes_sent == sum(10 + i for i in range(count))


def test_an_impossible_datagram_costs_only_itself(opened: Sockets):
    a, b = opened("127.0.0.1"), opened("127.0.0.1")
    pieces = Pieces(
        [
            ((b"1",), b.address),
            ((b"2",), pack_address("127.0.0.1", 0)),
            ((bytes(40000), bytes(40000)), b.address),
            ((b"3", b"3"), b.address),
            ((b"4",), pack_address("255.255.255.255", 9)),
            ((b"555",), b.address),
        ],
        socket.AF_INET,
    )
    assert a.send(pieces.ring, 6) == 3
    assert [bytes(data) for data, _ in b.receive_batch()] == [b"1", b"33", b"555"]
    errors = a.counters.send_errors
    assert errors["EMSGSIZE"] == errors["EINVAL"] == 1
    assert sum(errors.values()) == 3
    assert (a.counters.datagrams_sent, a.counters.bytes_sent) == (3, 6)


REFUSALS = ("ENOBUFS", "EPERM", "EMSGSIZE", "ENETUNREACH", "EHOSTUNREACH", "ECONNREFUSED", "EACCES", "ENOMEM")


def refusing(script: Sequence[int | str], sizes: Sequence[int], ring: SendRing) -> object:
    """A kernel that takes as many as a number says, or refuses with an errno's name."""
    left = list(script)
    position = [0]
    results = ring.headers.view(np.uint32)

    def sendmmsg(fd: int, address: int, count: int, flags: int) -> int:
        step = left.pop(0) if left else count
        if isinstance(step, str):
            ctypes.set_errno(getattr(errno, step))
            if step != "EINTR":
                position[0] += 1
            return -1
        took = min(step, count)
        for i in range(position[0], position[0] + took):
            results[i, 14] = sizes[i]
        position[0] += took
        return took

    return sendmmsg


@pytest.mark.parametrize("word", REFUSALS)
def test_every_refusal_is_counted_by_its_errno_and_the_datagrams_after_it_leave(
    monkeypatch: pytest.MonkeyPatch, word: str
):
    ring, errors = SendRing(10, 10, socket.AF_INET), Counter[str]()
    sizes = list(range(100, 110))
    monkeypatch.setattr("udpio.arena._sendmmsg", refusing([2, word, "EINTR", 1, word, word], sizes, ring))
    sent, volume = ring.send(0, 10, errors)
    assert errors == {word: 3}
    assert sent == 7
    assert volume == sum(sizes) - sizes[2] - sizes[4] - sizes[5]


def test_a_full_socket_drops_what_is_left_and_counts_all_of_it(monkeypatch: pytest.MonkeyPatch):
    ring, errors = SendRing(10, 10, socket.AF_INET), Counter[str]()
    monkeypatch.setattr("udpio.arena._sendmmsg", refusing([3, "EPERM", 1, "EAGAIN"], [1] * 10, ring))
    assert ring.send(0, 10, errors) == (4, 4)
    assert errors == {"EPERM": 1, "EAGAIN": 5}


def test_a_closed_socket_receives_nothing_and_counts_what_it_drops(opened: Sockets):
    a = opened("127.0.0.1")
    a.close()
    assert a.receive() == 0
    assert a.send(SendRing(3, 3, socket.AF_INET), 3) == 0
    assert a.counters.send_errors == {"EBADF": 3}


def test_arenas_and_rings_have_bounds():
    with pytest.raises(ValueError, match="a batch"):
        ReceiveArena(1025, 100, socket.AF_INET)
    with pytest.raises(ValueError, match="piece"):
        SendRing(3, 2, socket.AF_INET)

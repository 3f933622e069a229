"""Datagrams on their way in: whole batches in one arena, where SRTP opens them.

A BatchSocket fills its arena by one system call. What other sockets have (the portable one, the one in memory) is copied
into an arena of the same kind, so that there is one way behind.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

from protocol.srtp import Arena, SrtpLibrary
from udpio import BatchSocket, ReceiveArena, UdpSocket

__all__ = ["Intake"]

# Implementation constants
SLOT_SIZE = 2048  # of the arena for other sockets; longer datagrams are dropped, as by a BatchSocket


class Intake:
    """`receive`, then `datagrams` or the arena's own columns; all valid until the next `receive`.

    `srtp`       the whole memory of the slots as SRTP sees it
    `offsets`    where each slot begins in it
    `is_words`   whether the arena tells a sender's address by one word (IPv4)
    """

    __slots__ = ("_batch_socket", "_socket", "arena", "batch_size", "is_words", "offsets", "srtp")

    def __init__(self, udp: UdpSocket, library: SrtpLibrary) -> None:
        self._socket = udp
        self._batch_socket = udp if isinstance(udp, BatchSocket) else None
        self.batch_size = udp.batch_size
        if self._batch_socket is not None:
            self.arena = self._batch_socket.arena
        else:
            family = socket.AF_INET if len(udp.address) == 6 else socket.AF_INET6
            self.arena = ReceiveArena(udp.batch_size, SLOT_SIZE, family)
        arena = self.arena
        self.is_words = arena.family == socket.AF_INET
        self.srtp: Arena = library.arena(arena.memory)
        self.offsets: list[int] = [int(at) for at in arena.slot_addresses - arena.slot_addresses[0]]

    def receive(self) -> int:
        """How many slots are filled now. Never blocks."""
        if self._batch_socket is not None:
            return self._batch_socket.receive()
        arena, count = self.arena, 0
        for data, source in self._socket.receive_batch():
            arena.put(count, data, source)
            count += 1
        arena.is_cut = any(length > arena.slot_size for length in arena.cells[:count])
        return count

    def datagrams(self, count: int) -> Iterator[tuple[int, int, int]]:
        """(index, offset, length) of those that came whole."""
        size = self.arena.slot_size
        for index, offset, length in zip(range(count), self.offsets, self.arena.cells[:count].tolist()):
            if length <= size:
                yield index, offset, length

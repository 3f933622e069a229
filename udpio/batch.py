"""Many datagrams in one system call: recvmmsg and sendmmsg through ctypes, into buffers made once. Linux only.

No compiler is needed at install. `receive_batch` and `send_batch` take and give tuples, as every UdpSocket does. Who wants
whole batches as arrays uses `receive`, `arena`, `send` and a SendRing of his own (see udpio.arena).

In a sockaddr_in the port and the address stand side by side in network order: they *are* our TransportAddress.
"""

from __future__ import annotations

import ctypes
import errno
import socket
from collections.abc import Sequence

import numpy as np

from protocol.address import TransportAddress
from udpio.arena import ReceiveArena, SendRing, name_words
from udpio.interface import Datagram
from udpio.kernel import KernelSocket, SocketOptions, errno_name

__all__ = ["BatchSocket"]


class BatchSocket(KernelSocket):
    """UdpSocket by recvmmsg/sendmmsg."""

    def __init__(self, sock: socket.socket, options: SocketOptions) -> None:
        super().__init__(sock, options)
        self._fd = sock.fileno()
        self.arena = ReceiveArena(options.batch_size, options.slot_size, sock.family)
        self._ring = SendRing(options.batch_size, options.batch_size, sock.family)
        self._slots = bytearray(options.batch_size * options.slot_size)
        self._views = [
            memoryview(self._slots)[at : at + options.slot_size] for at in range(0, len(self._slots), options.slot_size)
        ]
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._slots))  # pinned by the views: it never moves
        for index in range(options.batch_size):
            self._ring.vector_cells[2 * index] = base + index * options.slot_size

    def close(self) -> None:
        self._fd = -1  # the number may soon belong to another socket
        super().close()

    # Whole batches

    def receive(self) -> int:
        """Fill `arena`; how many slots. Counted in full; what is longer than a slot is for the caller to pass over."""
        if self._fd < 0:
            return 0
        arena = self.arena
        count = arena.receive(self._fd)
        counters = self.counters
        if count <= 0:
            if count < 0 and -count not in (errno.EAGAIN, errno.EINTR):
                counters.receive_errors[errno_name(-count)] += 1
            return 0
        counters.datagrams_received += count
        counters.bytes_received += arena.survey(count)
        if arena.is_cut:
            counters.truncated += int(np.count_nonzero(arena.lengths[:count] > arena.slot_size))
        return count

    def send(self, ring: SendRing, count: int) -> int:
        """The first `count` datagrams of a ring of this socket's family; returns how many the kernel accepted."""
        if self._fd < 0:
            ring.refused = list(range(count))
            return self._drop_all(count)
        counters = self.counters
        sent, volume = ring.send(self._fd, count, counters.send_errors)
        counters.datagrams_sent += sent
        counters.bytes_sent += volume
        return sent

    # As tuples

    def receive_batch(self) -> list[tuple[memoryview, TransportAddress]]:
        arena = self.arena
        count = self.receive()
        payloads, size = arena.payloads, arena.slot_size
        return [
            (payload[:length], address)
            for payload, length, address in zip(payloads, arena.cells[:count].tolist(), arena.addresses(count))
            if length <= size
        ]

    def send_batch(self, datagrams: Sequence[Datagram]) -> int:
        if self._fd < 0:
            return self._drop_all(len(datagrams))
        size = self._batch_size
        if len(datagrams) <= size:
            return self._send_some(datagrams)
        return sum(self._send_some(datagrams[start : start + size]) for start in range(0, len(datagrams), size))

    def _send_some(self, datagrams: Sequence[Datagram]) -> int:
        ring, views, size = self._ring, self._views, self._slot_size
        vectors, names, family = ring.vector_cells, ring.name_cells, ring.family
        count = sent = 0
        for data, address in datagrams:
            length = len(data)
            if length > size:
                sent += self._send_one(data, address)  # rare; the kernel fragments it or refuses it
                continue
            if family == socket.AF_INET:
                if len(address) != 6:
                    self.counters.send_errors["EAFNOSUPPORT"] += 1
                    continue
                names[count] = family | int.from_bytes(address, "little") << 16
            else:
                at = 3 * count
                names[at], names[at + 1], names[at + 2] = name_words(address, family)
            views[count][:length] = data
            vectors[2 * count + 1] = length
            count += 1
        return sent + self.send(ring, count) if count else sent

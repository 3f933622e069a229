"""The portable UdpSocket: one system call a datagram. For systems without recvmmsg, and to compare against."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence

from protocol.address import TransportAddress, pack_address
from udpio.interface import Datagram
from udpio.kernel import KernelSocket, SocketOptions, errno_name

__all__ = ["PlainSocket"]


class PlainSocket(KernelSocket):
    """UdpSocket by recvfrom_into/sendto."""

    def __init__(self, sock: socket.socket, options: SocketOptions) -> None:
        super().__init__(sock, options)
        # One byte more than a slot, which a datagram that does not fit fills.
        width = options.slot_size + 1
        arena = memoryview(bytearray(options.batch_size * width))
        self._slots = [arena[i * width : (i + 1) * width] for i in range(options.batch_size)]

    def receive_batch(self) -> list[tuple[memoryview, TransportAddress]]:
        batch: list[tuple[memoryview, TransportAddress]] = []
        if self._closed:
            return batch
        counters = self.counters
        for slot in self._slots:
            try:
                length, source = self._socket.recvfrom_into(slot)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                if error.errno == errno.EMSGSIZE:  # how Windows says truncated
                    counters.truncated += 1
                else:
                    counters.receive_errors[errno_name(error.errno)] += 1
                continue
            counters.datagrams_received += 1
            counters.bytes_received += length
            if length > self._slot_size:
                counters.truncated += 1
            else:
                batch.append((slot[:length], pack_address(source[0], source[1])))
        return batch

    def send_batch(self, datagrams: Sequence[Datagram]) -> int:
        if self._closed:
            return self._drop_all(len(datagrams))
        sent = 0
        for done, (data, address) in enumerate(datagrams):
            before = self.counters.send_errors["EAGAIN"]
            sent += self._send_one(data, address)
            if self.counters.send_errors["EAGAIN"] > before:
                self.counters.send_errors["EAGAIN"] += len(datagrams) - done - 1
                break
        return sent

"""A network in memory: UdpSockets that reach each other without a kernel, for tests in virtual time.

Delivery is immediate and in order. A `deliver` hook may lose, or look at, every datagram; what a bound address does not
exist for vanishes, as with UDP.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import trio

from protocol.address import TransportAddress, pack_address
from udpio.interface import Datagram, UdpCounters

__all__ = ["MemoryNetwork", "MemorySocket"]

_FIRST_PORT = 40000
_QUEUE_LIMIT = 4096  # datagrams a socket; the newest are dropped beyond it, as a kernel does


class MemoryNetwork:
    """`deliver(source, destination, data)` returns whether a datagram arrives."""

    def __init__(self, deliver: Callable[[TransportAddress, TransportAddress, bytes], bool] | None = None) -> None:
        self.deliver = deliver
        self.unreachable = 0
        self._sockets: dict[TransportAddress, MemorySocket] = {}
        self._next_port = _FIRST_PORT

    def open(self, host: str = "127.0.0.1", port: int = 0, *, batch_size: int = 64) -> MemorySocket:
        """Bind a socket. Raises OSError when the address is taken."""
        if port == 0:
            port, self._next_port = self._next_port, self._next_port + 1
        address = pack_address(host, port)
        if address in self._sockets:
            raise OSError("address already in use")
        self._sockets[address] = found = MemorySocket(self, address, batch_size)
        return found

    def route(self, source: TransportAddress, destination: TransportAddress, data: bytes) -> None:
        target = self._sockets.get(destination)
        if target is None:
            self.unreachable += 1
        elif self.deliver is None or self.deliver(source, destination, data):
            target.put(data, source)

    def forget(self, address: TransportAddress) -> None:
        self._sockets.pop(address, None)


class MemorySocket:
    """UdpSocket on a MemoryNetwork."""

    def __init__(self, network: MemoryNetwork, address: TransportAddress, batch_size: int) -> None:
        self.counters = UdpCounters()
        self._network = network
        self._address = address
        self._batch_size = batch_size
        self._queue: deque[tuple[memoryview, TransportAddress]] = deque()
        self._waiting = trio.lowlevel.ParkingLot()
        self._closed = False

    @property
    def address(self) -> TransportAddress:
        return self._address

    @property
    def batch_size(self) -> int:
        return self._batch_size

    def put(self, data: bytes, source: TransportAddress) -> None:
        """Called by the network."""
        if len(self._queue) >= _QUEUE_LIMIT:
            self.counters.receive_errors["ENOBUFS"] += 1
            return
        self._queue.append((memoryview(data), source))
        self._waiting.unpark_all()

    def receive_batch(self) -> list[tuple[memoryview, TransportAddress]]:
        batch = [self._queue.popleft() for _ in range(min(len(self._queue), self._batch_size))]
        self.counters.datagrams_received += len(batch)
        self.counters.bytes_received += sum(len(data) for data, _ in batch)
        return batch

    def send_batch(self, datagrams: Sequence[Datagram]) -> int:
        if self._closed:
            self.counters.send_errors["EBADF"] += len(datagrams)
            return 0
        for data, destination in datagrams:
            self.counters.bytes_sent += len(data)
            self._network.route(self._address, destination, bytes(data))
        self.counters.datagrams_sent += len(datagrams)
        return len(datagrams)

    async def wait_readable(self) -> None:
        await trio.lowlevel.checkpoint()
        while not self._queue:
            if self._closed:
                raise trio.ClosedResourceError("socket was closed")
            await self._waiting.park()

    def close(self) -> None:
        self._closed = True
        self._queue.clear()
        self._network.forget(self._address)
        self._waiting.unpark_all()

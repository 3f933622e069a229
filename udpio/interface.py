"""What a UDP socket is to the packet loops: batches in, batches out, errors counted and never raised.

1. `await wait_readable()`.
2. `receive_batch()` until it returns fewer than `batch_size`, or until the loop's budget is used up.
3. What a batch caused leaves by `send_batch()` before the next `receive_batch()`: its views live only that long.

UDP gives no promise, so a datagram that the kernel refuses is counted by the name of its errno (`EPERM`, `ENOBUFS`,
`EMSGSIZE` …) and forgotten; the datagrams after it are still sent. A full socket (`EAGAIN`) drops the rest of the
batch: stale media is worth nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol, TypeAlias

from protocol.address import TransportAddress

__all__ = ["Datagram", "UdpCounters", "UdpSocket"]

Datagram: TypeAlias = tuple[bytes | memoryview, TransportAddress]


class UdpCounters:
    """Plain integers, read by the metrics collector at a scrape."""

    __slots__ = (
        "bytes_received",
        "bytes_sent",
        "datagrams_received",
        "datagrams_sent",
        "overflowed",
        "receive_errors",
        "send_errors",
        "truncated",
    )

    def __init__(self) -> None:
        self.datagrams_received = 0
        self.bytes_received = 0
        self.datagrams_sent = 0
        self.bytes_sent = 0
        self.overflowed = 0  # what the kernel dropped before we read it, when it was last asked: see KernelSocket
        self.truncated = 0  # longer than a receive slot: dropped whole
        self.receive_errors: Counter[str] = Counter()  # errno name → calls
        self.send_errors: Counter[str] = Counter()  # errno name → datagrams


class UdpSocket(Protocol):
    """Implemented by BatchSocket, PlainSocket and MemorySocket."""

    counters: UdpCounters

    @property
    def address(self) -> TransportAddress:
        """The local address as bound: the port is real even if 0 was asked for."""

    @property
    def batch_size(self) -> int:
        """Datagrams one `receive_batch` returns at most."""

    def receive_batch(self) -> list[tuple[memoryview, TransportAddress]]:
        """Never blocks; [] when nothing waits. The views are valid until the next call."""

    def send_batch(self, datagrams: Sequence[Datagram]) -> int:
        """Never blocks, takes any number; returns how many the kernel accepted."""

    async def wait_readable(self) -> None:
        """Raises trio.ClosedResourceError when the socket is closed, also by another task while waiting."""

    def close(self) -> None:
        """Idempotent. After it, receive_batch returns [] and send_batch drops."""

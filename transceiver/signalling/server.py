"""The HTTP server of signalling: the connections of `service.http` behind a door that counts.

At most so many connections in all and for each client address. Those beyond are closed at once: the kernel has accepted
them already, and an answer would have to wait for a request that may never come.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import trio

from service.http import HttpFaults, HttpLimits, serve_http
from transceiver.signalling.realtime import WEBSOCKETS

__all__ = ["ConnectionDoor", "ConnectionLimits", "serve_signalling"]


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    total: int
    per_address: int
    header_seconds: float = 5.0  # for the headers of a request; an idle connection is kept for as long
    read_seconds: float = 10.0  # without a byte of the body for so long, the connection is closed
    write_seconds: float = 10.0  # for the client to take a piece of the answer


class ConnectionDoor:
    """Counts the open connections (`total`), those it did not let in (`refused`), and those that failed inside."""

    __slots__ = ("faults", "limits", "open", "refused", "total")

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self.open: Counter[str] = Counter()
        self.total = 0
        self.refused = 0
        self.faults = HttpFaults()

    async def __call__(self, serve: Callable[[trio.SocketStream], Awaitable[None]], stream: trio.SocketStream) -> None:
        try:
            address = str(stream.socket.getpeername()[0])
        except OSError:  # gone already
            await stream.aclose()
            return
        if self.total >= self.limits.total or self.open[address] >= self.limits.per_address:
            self.refused += 1
            await stream.aclose()
            return
        self.total += 1
        self.open[address] += 1
        try:
            await serve(stream)
        finally:
            self.total -= 1
            self.open[address] -= 1
            if not self.open[address]:
                del self.open[address]


async def serve_signalling(
    app: Callable[..., Any],
    binds: tuple[str, ...],
    door: ConnectionDoor,
    *,
    shared: bool = False,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; `task_status` gets the bound URLs. `shared`: together with other processes of ours.
    Raises OSError if an address is taken."""
    limits = HttpLimits(
        header_seconds=door.limits.header_seconds,
        read_seconds=door.limits.read_seconds,
        write_seconds=door.limits.write_seconds,
    )
    await serve_http(
        app,
        binds,
        limits=limits,
        door=door,
        faults=door.faults,
        shared=shared,
        websockets=WEBSOCKETS,
        task_status=task_status,
    )

"""The HTTP server of signalling: hypercorn's connections behind a door that counts.

Hypercorn bounds the time that headers take and the size they have, but not how many connections there are; so the
listeners are ours, and each connection is handed to it: at most so many in all and for each client address.
Connections beyond that are closed at once: the kernel has accepted them already, and an answer would have to wait for
a request that may never come.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from service.addresses import parse_host_port, to_host_port

__all__ = ["ConnectionDoor", "ConnectionLimits", "serve_signalling"]

# Implementation constants
MAX_HEADER_BYTES = 16 * 1024
BACKLOG = 256


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    total: int
    per_address: int
    header_seconds: float = 5.0  # for the headers of a request; an idle connection is kept for as long
    read_seconds: float = 10.0  # without a byte of the body for so long, the connection is closed


class ConnectionDoor:
    """Counts the open connections (`total`), and those it did not let in (`refused`)."""

    __slots__ = ("limits", "open", "refused", "total")

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self.open: Counter[str] = Counter()
        self.total = 0
        self.refused = 0

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
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; `task_status` gets the bound URLs. Raises OSError if an address is taken."""
    config = Config()
    config.accesslog = None
    config.errorlog = None
    config.include_server_header = False
    config.keep_alive_timeout = door.limits.header_seconds
    config.read_timeout = door.limits.read_seconds  # type: ignore[assignment]
    config.h11_max_incomplete_size = MAX_HEADER_BYTES
    context = WorkerContext(None)
    wrapped = ASGIWrapper(app)

    async def serve_one(stream: trio.SocketStream) -> None:
        await TCPServer(wrapped, config, context, ConnectionState({}), stream)  # type: ignore[arg-type]

    listeners: list[trio.SocketListener] = []
    for bind in binds:
        host, port = parse_host_port(bind)
        listeners += await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG)
    urls = [f"http://{to_host_port(*listener.socket.getsockname()[:2])}" for listener in listeners]
    task_status.started(urls)
    await trio.serve_listeners(partial(door, serve_one), listeners)

"""Serving an ASGI application by hypercorn's connections inside our own nursery, with the limits every port of ours needs.

1. The listeners are ours. `door`, if there is one, says who may come in.
2. A connection speaks HTTP/1.1 and nothing else: an upgrade to HTTP/2 or to a WebSocket is ignored, as RFC 9110 §7.8
   allows, because nothing here is served over either, and both are a great deal of code for strangers to try.
3. Headers, a pause in a body, and a client that does not read its answer each have their time.
4. Connections that send at once go on one after the other, and everything else in the process has its turn in between.
5. What goes wrong in one connection ends that connection: nothing leaves it but Cancelled.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import h11
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr

from service.addresses import to_host_port
from service.listening import open_shared_tcp_at, open_tcp_at, open_unix_at
from service.logs import get_logger

__all__ = ["REQUEST_BEGAN", "Door", "HttpFaults", "HttpLimits", "serve_http"]

log = get_logger()

# Implementation constants
REQUEST_BEGAN = "antiphon.began"  # in the state of a request's scope: when its first byte came, by trio's clock
BACKLOG = 256
UNIX = "unix:"
FAULT_LOG_SECONDS = 10.0  # a stranger who finds a fault must not fill the log with it

Serve: TypeAlias = Callable[[trio.SocketStream], Awaitable[None]]
Door: TypeAlias = Callable[[Serve, trio.SocketStream], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Seconds, and bytes."""

    header_seconds: float = 5.0  # for the headers of a request; an idle connection is kept for as long
    read_seconds: float = 10.0  # without a byte of the body for so long, the connection is closed
    write_seconds: float = 10.0  # for the client to take a piece of the answer
    max_header_bytes: int = 16 * 1024


@dataclass(slots=True)
class HttpFaults:
    """Connections that ended by an exception of the server's code."""

    count: int = 0
    _silent_until: float = field(default=-math.inf, repr=False)

    def note(self, error: BaseException) -> None:
        self.count += 1
        now = trio.current_time()
        if now >= self._silent_until:
            self._silent_until = now + FAULT_LOG_SECONDS
            log.error("an HTTP connection failed", exc_info=error, failed=self.count)


class _Http1(H11Protocol):
    _began: float | None = None

    def __init__(self, *arguments: Any, turnstile: trio.Lock) -> None:  # noqa: ANN401 - hypercorn's own
        super().__init__(*arguments)
        self._turnstile = turnstile

    async def handle(self, event: Event) -> None:
        if self._began is None and self.stream is None and isinstance(event, RawData):
            self._began = trio.current_time()
        if isinstance(event, RawData):  # hundreds of offers in one pass of the scheduler would stop all calls
            async with self._turnstile:
                await trio.lowlevel.checkpoint()
        await super().handle(event)

    async def _check_protocol(self, event: h11.Request) -> None:
        """Hypercorn would switch to HTTP/2 here."""

    async def _create_stream(self, request: h11.Request) -> None:
        if {b"content-length", b"transfer-encoding"} <= {name for name, _ in request.headers}:
            # RFC 9112 §6.1: perhaps an attempt at smuggling; whoever stands before us may see another end of the request.
            await self._send_error_response(400)
            await self.send(Closed())
            return
        self.connection_state[REQUEST_BEGAN] = self._began
        self._began = None
        headers = [(name, value) for name, value in request.headers.raw_items() if name.lower() != b"upgrade"]
        await super()._create_stream(
            h11.Request(
                method=request.method, target=request.target, headers=headers, http_version=request.http_version
            )
        )


class _Connection(TCPServer):
    def __init__(self, *arguments: Any, write_seconds: float, turnstile: trio.Lock) -> None:  # noqa: ANN401 - hypercorn's own
        super().__init__(*arguments)
        self._write_seconds = write_seconds
        self._turnstile = turnstile

    async def run(self) -> None:
        sock = self.stream.socket
        state = ConnectionState({})
        try:
            client = parse_socket_addr(sock.family, sock.getpeername())
            server = parse_socket_addr(sock.family, sock.getsockname())
            async with TaskGroup() as task_group:
                self._task_group = task_group
                self.protocol = _Http1(  # type: ignore[assignment]
                    self.app,
                    self.config,
                    self.context,
                    task_group,
                    state,
                    False,
                    client,
                    server,
                    self.protocol_send,
                    turnstile=self._turnstile,
                )
                await self.protocol.initiate()
                await self.idle_task.restart(task_group, self._idle_timeout)
                await self._read_data()
        except OSError:
            pass
        finally:
            await self._close()

    async def protocol_send(self, event: Event) -> None:
        """Hypercorn shields this, and waits for ever: whoever did not read his answer would keep us from ending."""
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        async with self.send_lock:
            try:
                with trio.fail_after(self._write_seconds):
                    await self.stream.send_all(event.data)
            except (trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError):
                await trio.aclose_forcefully(self.stream)  # the reader notices


async def serve_http(
    app: Callable[..., Any],
    binds: list[str] | tuple[str, ...],
    *,
    limits: HttpLimits | None = None,
    door: Door | None = None,
    faults: HttpFaults | None = None,
    shared: bool = False,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` on `binds` ("127.0.0.1:8080", "[::1]:0", "unix:/path") until cancelled; `task_status` gets the bound URLs.
    `shared`: other processes of ours serve there, too. Raises CannotListen if an address is taken."""
    limits = limits or HttpLimits()
    faults = faults if faults is not None else HttpFaults()
    config = Config()
    config.accesslog = None
    config.errorlog = None
    config.include_server_header = False
    config.keep_alive_timeout = limits.header_seconds
    config.read_timeout = limits.read_seconds  # type: ignore[assignment]
    config.h11_max_incomplete_size = limits.max_header_bytes
    context = WorkerContext(None)
    wrapped = ASGIWrapper(app)
    turnstile = trio.Lock()

    async def serve(stream: trio.SocketStream) -> None:
        try:
            await _Connection(
                wrapped,
                config,
                context,
                ConnectionState({}),
                stream,
                write_seconds=limits.write_seconds,
                turnstile=turnstile,
            ).run()
        except* Exception as group:  # noqa: BLE001 - one connection's failure must not end all else in the process
            faults.note(group)

    async def handle(stream: trio.SocketStream) -> None:
        if door is None:
            await serve(stream)
        else:
            await door(serve, stream)

    listeners: list[trio.SocketListener] = []
    for bind in binds:
        if bind.startswith(UNIX):
            listeners.append(open_unix_at(bind.removeprefix(UNIX), BACKLOG))
        elif shared:
            listeners += await open_shared_tcp_at(bind, BACKLOG)
        else:
            listeners += await open_tcp_at(bind, BACKLOG)
    task_status.started([_url(listener) for listener in listeners])
    await trio.serve_listeners(handle, listeners)


def _url(listener: trio.SocketListener) -> str:
    name = listener.socket.getsockname()
    return f"{UNIX}{name}" if isinstance(name, str) else f"http://{to_host_port(*name[:2])}"

"""Serving an ASGI application by hypercorn's connections inside our own nursery, with the limits every port of ours needs.

1. The listeners are ours. `door`, if there is one, says who may come in.
2. A connection speaks HTTP/1.1 and nothing else: an upgrade to HTTP/2 is ignored, and one to a WebSocket too, as RFC 9110
   §7.8 allows, but on the paths that an application names: each is a great deal of code for strangers to try. Of a
   WebSocket each message has its limit (upgrade.py), and so has its silence: pings ask whether the client is there.
3. Headers, a pause in a body, and a client that does not read its answer each have their time.
4. Connections that send at once go on one after the other, and everything else in the process has its turn in between.
   A request itself costs few passes of the scheduler: its head and body leave as one write, its words reach the
   application without a pause if there is room, and the one timer of a connection is the deadline of its read.
5. What goes wrong in one connection ends that connection: nothing leaves it but Cancelled.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import h11
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Request
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol, H11WSConnection
from hypercorn.trio.task_group import TaskGroup, _handle
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ASGIReceiveEvent, ConnectionState, H11SendableEvent, Scope
from hypercorn.utils import parse_socket_addr

from service.addresses import to_host_port
from service.listening import open_shared_tcp_at, open_tcp_at, open_unix_at
from service.logs import get_logger
from service.upgrade import WebSocketStream

__all__ = ["REQUEST_BEGAN", "Door", "HttpFaults", "HttpLimits", "WebSocketLimits", "serve_http"]

log = get_logger()

# Implementation constants
REQUEST_BEGAN = "antiphon.began"  # in the state of a request's scope: when its first byte came, by trio's clock
BACKLOG = 256
MAX_RECEIVE = 64 * 1024  # bytes
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


@dataclass(frozen=True, slots=True)
class WebSocketLimits:
    """Where there are WebSockets, and what they may do; seconds, and bytes."""

    paths: frozenset[str] = frozenset()
    max_message_bytes: int = 1024 * 1024
    ping_seconds: float = 10.0  # without a byte for so long, the client is asked whether it is there
    silence_seconds: float = 30.0  # without any, it is not


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


class _Applications(TaskGroup):
    """The requests of a connection, a task each. Hypercorn pauses for each word to one, and for each word that it takes."""

    async def spawn_app(
        self,
        app: AppWrapper,
        config: Config,
        scope: Scope,
        send: Callable[[Any], Awaitable[None]],
    ) -> Callable[[ASGIReceiveEvent], Awaitable[None]]:
        size = 1 if scope["type"] == "websocket" else config.max_app_queue_size  # whose messages may be large
        put, take = trio.open_memory_channel[ASGIReceiveEvent](size)

        async def tell(event: ASGIReceiveEvent) -> None:
            with suppress(trio.BrokenResourceError):  # the application has ended
                try:
                    put.send_nowait(event)
                except trio.WouldBlock:
                    await put.send(event)

        async def receive() -> ASGIReceiveEvent:
            try:
                return take.receive_nowait()
            except trio.WouldBlock:
                return await take.receive()

        async def run() -> None:
            with take:
                await _handle(app, config, scope, receive, send, _no_threads, _no_threads)

        assert self._nursery is not None
        self._nursery.start_soon(run)
        return tell


def _no_threads(*_: object) -> None:
    raise NotImplementedError("only applications of WSGI need threads")


class _Http1(H11Protocol):
    _began: float | None = None

    def __init__(
        self,
        *arguments: Any,  # noqa: ANN401 - hypercorn's own
        turnstile: trio.Lock,
        websockets: WebSocketLimits,
        on_closing: Callable[[], None],
    ) -> None:
        super().__init__(*arguments)
        self._turnstile = turnstile
        self._websockets = websockets
        self._on_closing = on_closing
        self._head = b""  # of the answer: it leaves with what follows

    async def handle(self, event: Event) -> None:
        if self._began is None and self.stream is None and isinstance(event, RawData):
            self._began = trio.current_time()
        if isinstance(event, RawData):  # hundreds of offers in one pass of the scheduler would stop all calls
            await self._pause()
        await super().handle(event)

    async def _pause(self) -> None:
        async with self._turnstile:  # to get it takes a pass
            pass

    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        try:
            data = self.connection.send(event)
        except h11.LocalProtocolError:
            if self.connection.their_state != h11.ERROR:
                raise
            return
        data, self._head = self._head + (data or b""), b""
        if isinstance(event, h11.Response):
            self._head = data
        elif data:
            await self.send(RawData(data=data))

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
        headers = list(request.headers)
        path = request.target.partition(b"?")[0].decode("latin-1")
        asks = any(name == b"upgrade" and value.lower() == b"websocket" for name, value in headers)
        if asks and request.method == b"GET" and path in self._websockets.paths:
            await self._upgrade(request, headers)
            return
        if any(name == b"upgrade" for name, _ in headers):
            request = h11.Request(
                method=request.method,
                target=request.target,
                headers=[(name, value) for name, value in headers if name != b"upgrade"],
                http_version=request.http_version,
            )
        await super()._create_stream(request)

    async def _upgrade(self, request: h11.Request, headers: list[tuple[bytes, bytes]]) -> None:
        stream = self.stream = WebSocketStream(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
            max_message_bytes=self._websockets.max_message_bytes,
            on_closing=self._on_closing,
            pause=self._pause,
        )
        assert isinstance(self.connection, h11.Connection)
        self.connection = H11WSConnection(self.connection)
        await stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=headers,
                http_version=request.http_version.decode(),
                method=request.method.decode("ascii").upper(),
                raw_path=request.target,
                state=self.connection_state,
            )
        )
        if stream.closed:  # it was no good
            await self.send(Closed())


class _Connection(TCPServer):
    def __init__(
        self,
        *arguments: Any,  # noqa: ANN401 - hypercorn's own
        write_seconds: float,
        turnstile: trio.Lock,
        websockets: WebSocketLimits,
    ) -> None:
        super().__init__(*arguments)
        self._write_seconds = write_seconds
        self._turnstile = turnstile
        self._websockets = websockets
        self._idle_until = math.inf  # while no request is served: when its headers must have come
        self._read = trio.CancelScope()  # the one that goes on

    async def run(self) -> None:
        sock = self.stream.socket
        state = ConnectionState({})
        try:
            client = parse_socket_addr(sock.family, sock.getpeername())
            server = parse_socket_addr(sock.family, sock.getsockname())
            async with _Applications() as task_group:
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
                    websockets=self._websockets,
                    on_closing=self._hurry,
                )
                await self.protocol.initiate()
                self._set_idle(True)
                await self._read_data()
        except OSError:
            pass
        finally:
            await self._close()

    def _set_idle(self, is_idle: bool) -> None:
        self._idle_until = trio.current_time() + self.config.keep_alive_timeout if is_idle else math.inf
        self._read.deadline = min(self._read.deadline, self._idle_until)

    async def _read_data(self) -> None:
        """Hypercorn has a task for each wait for a request, and ends it for each that comes."""
        waits_since = trio.current_time()
        while True:
            websocket, now = self._websocket, trio.current_time()
            if websocket is None:
                until = min(self._idle_until, now + (self.config.read_timeout or math.inf))
            else:
                until = min(websocket.ends_at, now + self._websockets.ping_seconds)
                if until <= now:  # it goes on sending, and what is there is read at once, whatever the deadline
                    break
            data = b""
            try:
                with trio.CancelScope(deadline=until) as self._read:
                    data = bytes(await self.stream.receive_some(MAX_RECEIVE))
            except (trio.ClosedResourceError, trio.BrokenResourceError):
                break
            if self._read.cancelled_caught:
                patience = waits_since + self._websockets.silence_seconds
                if websocket is None or trio.current_time() >= min(websocket.ends_at, patience):
                    break
                await websocket.ping()
                continue
            await self.protocol.handle(RawData(data))
            if not data:
                break
            waits_since = trio.current_time()  # not before: the application may have made us wait
        await self.protocol.handle(Closed())

    @property
    def _websocket(self) -> WebSocketStream | None:
        stream = getattr(self.protocol, "stream", None)
        return stream if isinstance(stream, WebSocketStream) and stream.is_open else None

    def _hurry(self) -> None:
        if (websocket := self._websocket) is not None:
            self._read.deadline = min(self._read.deadline, websocket.ends_at)

    async def protocol_send(self, event: Event) -> None:
        """Hypercorn shields this, and waits for ever: whoever did not read his answer would keep us from ending."""
        if isinstance(event, Updated):
            self._set_idle(event.idle)
            return
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        async with self.send_lock:
            try:
                with trio.fail_after(self._write_seconds):
                    await self.stream.send_all(event.data)
            except (trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError):
                await trio.aclose_forcefully(self.stream)  # the reader notices
            except trio.Cancelled:  # a part of it may have gone: nothing can follow that
                await trio.aclose_forcefully(self.stream)
                raise


async def serve_http(
    app: Callable[..., Any],
    binds: list[str] | tuple[str, ...],
    *,
    limits: HttpLimits | None = None,
    door: Door | None = None,
    faults: HttpFaults | None = None,
    shared: bool = False,
    websockets: WebSocketLimits | None = None,
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
                websockets=websockets or WebSocketLimits(),
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

"""One WebSocket to the service: called, kept alive, read and written until it fails. Why it failed is the result.

Bounds: `max_event_bytes` a message, four messages read ahead; and of bytes that never become a message (fragments without
end, the body of a refusal) as much again: then the stream ends. It is read 4 KiB at a time, and other calls have their turn
in between: many small frames are much work.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn, TypeAlias

import trio

from agent.upstream.config import Access
from agent.upstream.contact import Failure
from service import websocket
from service.logs import get_logger
from service.websocket import ConnectionRejected, Message, WebSocket, WebSocketClosed

__all__ = ["Connection", "Dialler", "dial"]

log = get_logger()

# Implementation constants
TOO_LARGE = "1009 Exceeded"  # how the library says that a message was, which it then gave up
FAREWELL_SECONDS = 1.0
MAX_WORDS = 100  # letters of a reason to close
RECEIVE_BYTES = 4096  # at a time: two thousand pings are as many, and hold up all calls
READ_AHEAD = 6  # messages: the queue, the one that waits for room there, the one that is being read

Dialler: TypeAlias = Callable[[Access], Awaitable[trio.abc.Stream]]


async def dial(access: Access, context: ssl.SSLContext | None = None) -> trio.abc.Stream:
    """TCP, and TLS with the certificate verified (`context`: by others than the system's authorities). Raises OSError,
    trio.BrokenResourceError."""
    tcp = await trio.open_tcp_stream(access.name, access.port)
    if not access.tls:
        return tcp
    context = context or ssl.create_default_context()
    stream = trio.SSLStream(tcp, context, server_hostname=access.name, https_compatible=True)
    try:
        await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


class Flooded(Exception):
    """More bytes than messages may have."""


class _Measured(trio.abc.Stream):
    """A stream that counts what it reads, and reads no more than `budget` without a message in it."""

    def __init__(self, stream: trio.abc.Stream, budget: int) -> None:
        self._stream = stream
        self._budget = budget
        self._left = budget
        self.received = 0
        self.flooded = False
        self.ended: Callable[[], None] = lambda: None

    def renew(self) -> None:
        """A message was in it."""
        self._left = self._budget

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self._left < 0:
            self.flooded = True
            self.ended()
            raise trio.BrokenResourceError
        try:
            data = await self._stream.receive_some(max_bytes)
        except trio.BrokenResourceError:
            self.ended()
            raise
        if not data:
            self.ended()
        self.received += len(data)
        self._left -= len(data)
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError:
            self.ended()
            raise

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


class Connection:
    """`receive` gets each message, and may wait; `write` sends, until cancelled."""

    def __init__(
        self,
        access: Access,
        dialler: Dialler,
        receive: Callable[[Message], Awaitable[None]],
        write: Callable[[WebSocket], Awaitable[None]],
        *,
        max_event_bytes: int,
        ping_seconds: float,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """`headers` of the request, besides those of `access`."""
        self._access = access
        self._headers = (*access.headers, *headers)
        self._dialler = dialler
        self._receive = receive
        self._write = write
        self._max_event_bytes = max_event_bytes
        self._ping_seconds = ping_seconds
        self._is_held = False  # we do not read: the pong may stand behind what we do not take
        self._socket: WebSocket | None = None
        self._farewell = trio.CancelScope()

    async def run(self) -> Failure:
        """Until it is over. The caller limits the time for the beginning."""
        failures: list[Failure] = []
        try:
            await self._run()
        except* ConnectionRejected as group:
            failures.append(_refusal(_first(group)))
        except* WebSocketClosed as group:
            words = "".join(filter(str.isprintable, str(_first(group))))[:MAX_WORDS]
            failures.append(Failure("flooded") if words.startswith(TOO_LARGE) else Failure("closed", words))
        except* trio.TooSlowError:
            failures.append(Failure("stalled"))
        except* Flooded:
            failures.append(Failure("flooded"))
        except* (OSError, trio.BrokenResourceError) as group:
            failures.append(Failure("unreachable", _why(_first(group))))
        except* Exception as group:  # libraries raise many kinds for what is not quite a WebSocket
            log.error("the connection to the service failed", exc_info=group)
            failures.append(Failure("failed"))
        return failures[0] if failures else Failure("closed")

    async def close(self) -> None:
        """Say goodbye, if there is anybody; then `run` ends."""
        if self._socket is not None:
            with trio.move_on_after(FAREWELL_SECONDS) as self._farewell:
                await self._socket.close()

    async def _run(self) -> NoReturn:
        self._is_held = False
        stream = _Measured(await self._dialler(self._access), READ_AHEAD * self._max_event_bytes)
        try:
            async with trio.open_nursery() as nursery:
                self._socket = socket = await self._open(nursery, stream)
                nursery.start_soon(self._write, socket)
                nursery.start_soon(self._keep_alive, nursery, socket, stream)
                while True:
                    try:
                        message = await socket.receive()
                    except WebSocketClosed:
                        if stream.flooded:
                            raise Flooded from None
                        raise
                    stream.renew()
                    self._is_held = True
                    await self._receive(message)
                    self._is_held = False
        finally:
            self._socket = None
            self._farewell.cancel()  # the library would wait for an answer that nobody reads any more
            await trio.aclose_forcefully(stream)

    async def _open(self, nursery: trio.Nursery, stream: _Measured) -> WebSocket:
        # The library waits for ever for an answer on a stream that has ended.
        with trio.CancelScope() as scope:
            stream.ended = scope.cancel
            socket = await websocket.connect(
                nursery,
                stream,
                self._access.host,
                self._access.target,
                max_message_bytes=self._max_event_bytes,
                headers=self._headers,
                receive_bytes=RECEIVE_BYTES,
            )
            stream.ended = lambda: None
            return socket
        if stream.flooded:
            raise Flooded
        raise WebSocketClosed(websocket.ABNORMAL, "before it was open")

    async def _keep_alive(self, nursery: trio.Nursery, socket: WebSocket, stream: _Measured) -> NoReturn:
        """Anything that comes is a sign of life; while we do not read, there can be none."""
        while True:
            await trio.sleep(self._ping_seconds)
            answered = trio.Event()
            nursery.start_soon(_ping, socket, answered)
            while not answered.is_set():
                received = stream.received
                with trio.move_on_after(self._ping_seconds):
                    await answered.wait()
                if not answered.is_set() and stream.received == received and not self._is_held:
                    raise trio.TooSlowError


async def _ping(socket: WebSocket, answered: trio.Event) -> None:
    await socket.ping()
    answered.set()


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


def _refusal(error: BaseException) -> Failure:
    assert isinstance(error, ConnectionRejected)
    headers = {bytes(name).lower(): bytes(value) for name, value in error.headers or ()}
    after = headers.get(b"retry-after", b"")
    seconds = float(after) if after.isdigit() and len(after) <= 5 else 0.0
    return Failure("refused", f"HTTP {error.status_code}", seconds)


def _why(error: BaseException) -> str:
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return "its certificate cannot be verified"
    return "TLS failed" if isinstance(cause, ssl.SSLError) else ""

"""WebSockets between our own processes, over trio-websocket: the few things that both ends do alike.

1. `connect` and `accept` make one inside a nursery; the stream stays its owner's to close, for the library forgets it when
   the other side drops it without a goodbye.
2. One task calls `receive`, again and again. Any task may call `send`.
3. One task runs `keep_alive`, which finds out that the other side is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn, TypeAlias, TypeVar

import trio
import wsproto
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
    wrap_client_stream,
    wrap_server_stream,
)

__all__ = [
    "ConnectionRejected",
    "HandshakeError",
    "Message",
    "Refusal",
    "Request",
    "WebSocket",
    "WebSocketClosed",
    "accept",
    "connect",
    "first_of",
    "read_head",
]

Message: TypeAlias = str | bytes
_Error = TypeVar("_Error", bound=BaseException)

# Specification constants, RFC 6455 §7.4.1
NORMAL, ABNORMAL = 1000, 1006

# Implementation constants
RECEIVE_BYTES = 64 * 1024
MESSAGE_QUEUE = 4  # messages read ahead; then TCP makes the other side wait
MAX_HEAD_BYTES = 16 * 1024  # of a request


class WebSocketClosed(Exception):
    """Nothing comes, or can be sent, any more. `code` and `reason` are the other side's; 1006 if it said none."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks for; the names of `headers` are in lower case."""

    target: str
    headers: dict[bytes, bytes]
    subprotocols: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    status: int
    body: bytes = b""
    """JSON."""


async def connect(
    nursery: trio.Nursery,
    stream: trio.abc.Stream,
    host: str,
    target: str,
    *,
    max_message_bytes: int,
    subprotocols: Sequence[str] = (),
    headers: Sequence[tuple[bytes, bytes]] = (),
    receive_bytes: int = RECEIVE_BYTES,
) -> WebSocket:
    """The client's end; `headers` go with the request, and at most `receive_bytes` are read at a time: what is in one piece is
    handled in one go. Raises HandshakeError when the other side is no WebSocket,
    ConnectionRejected, which is one, when it refuses (either in the nursery), WebSocketClosed."""
    try:
        return WebSocket(
            await wrap_client_stream(
                nursery,
                stream,  # type: ignore[arg-type]  # any stream will do
                host,
                target,
                subprotocols=list(subprotocols),
                extra_headers=list(headers),
                message_queue_size=MESSAGE_QUEUE,
                max_message_size=max_message_bytes,
                receive_buffer_size=receive_bytes,
            )
        )
    except ConnectionClosed as closed:
        raise _closed(closed) from None


class _Replayed(trio.abc.Stream):
    """A stream of which the beginning has been read."""

    def __init__(self, stream: trio.abc.Stream, beginning: bytes) -> None:
        self._stream = stream
        self._beginning = beginning

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        beginning, self._beginning = self._beginning, b""
        if beginning:
            await trio.lowlevel.checkpoint()
            return beginning
        return await self._stream.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


async def read_head(stream: trio.abc.Stream) -> tuple[str, trio.abc.Stream]:
    """What a client asks for, before it is accepted, and the stream to accept it on: how large messages may be depends on it.
    Raises HandshakeError, trio.BrokenResourceError."""
    head = b""
    while b"\r\n\r\n" not in head:
        piece = bytes(await stream.receive_some(MAX_HEAD_BYTES))
        head += piece
        if not piece or len(head) > MAX_HEAD_BYTES:
            raise HandshakeError
    line = head.partition(b"\r\n")[0].split(b" ")
    if len(line) != 3:
        raise HandshakeError
    return line[1].decode("latin-1"), _Replayed(stream, head)


async def accept(
    nursery: trio.Nursery,
    stream: trio.abc.Stream,
    *,
    max_message_bytes: int,
    refuse: Callable[[Request], Refusal | None] = lambda _: None,
    subprotocol: str | None = None,
) -> WebSocket | None:
    """The server's end. `refuse` may answer a request by something else; then the result is None. `subprotocol` is ours, if
    the client offers it. Raises HandshakeError, WebSocketClosed."""
    try:
        proposal = await wrap_server_stream(nursery, stream, MESSAGE_QUEUE, max_message_bytes, RECEIVE_BYTES)
        headers = {name.lower(): value for name, value in proposal.headers}
        refusal = refuse(Request(proposal.path, headers, proposal.proposed_subprotocols))
        if refusal is not None:
            json = [(b"content-type", b"application/json")] if refusal.body else []
            await proposal.reject(refusal.status, extra_headers=json, body=refusal.body)
            return None
        chosen = subprotocol if subprotocol in proposal.proposed_subprotocols else None
        return WebSocket(await proposal.accept(subprotocol=chosen))
    except ConnectionClosed as closed:
        raise _closed(closed) from None


class WebSocket:
    """Methods raise WebSocketClosed once either side has closed, or the stream has broken."""

    def __init__(self, connection: WebSocketConnection) -> None:
        self._connection = connection

    @property
    def subprotocol(self) -> str | None:
        """That both sides agreed on."""
        return self._connection.subprotocol

    async def receive(self) -> Message:
        try:
            message: Message = await self._connection.get_message()
        except ConnectionClosed as closed:
            raise _closed(closed) from None
        return message

    async def send(self, messages: Sequence[Message]) -> None:
        """One after the other; those of two senders may mix."""
        try:
            for message in messages:
                await self._connection.send_message(message)
        except ConnectionClosed as closed:
            raise _closed(closed) from None
        except wsproto.utilities.LocalProtocolError:  # it began to close meanwhile
            raise WebSocketClosed(ABNORMAL, "closing") from None

    async def keep_alive(self, every: float, patience: float) -> NoReturn:
        """Ping every so many seconds. Raises trio.TooSlowError when the answer takes longer than `patience`."""
        while True:
            await trio.sleep(every)
            with trio.fail_after(patience):
                await self.ping()

    async def ping(self) -> None:
        """Until the other side has answered. Cancelled half-way, it may leave a broken stream."""
        try:
            await self._connection.ping()
        except ConnectionClosed as closed:
            raise _closed(closed) from None
        except wsproto.utilities.LocalProtocolError:
            raise WebSocketClosed(ABNORMAL, "closing") from None

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Say goodbye, and wait for the other side's. Callers limit the time; the stream stays to be closed."""
        await self._connection.aclose(code, reason)


def first_of(group: BaseExceptionGroup[_Error]) -> _Error:
    """The first of the errors in it: what is raised in a nursery comes so."""
    first: _Error | BaseExceptionGroup[_Error] = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first


def _closed(closed: ConnectionClosed) -> WebSocketClosed:
    reason = closed.reason
    return (
        WebSocketClosed(reason.code, reason.reason or reason.name)
        if reason is not None
        else WebSocketClosed(ABNORMAL, "")
    )

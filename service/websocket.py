"""The agent link's WebSocket over trio-websocket: the few things that both ends do alike.

1. `connect` and `accept` make one inside a nursery; the stream stays its owner's to close, for the library forgets it when
   the other side drops it without a goodbye.
2. One task calls `receive`, again and again. Any task may call `send`.
3. One task runs `keep_alive`, which finds out that the other side is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NoReturn, TypeAlias

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

__all__ = ["ConnectionRejected", "HandshakeError", "Message", "WebSocket", "WebSocketClosed", "accept", "connect"]

Message: TypeAlias = str | bytes

# Specification constants, RFC 6455 §7.4.1
NORMAL, ABNORMAL = 1000, 1006

# Implementation constants
RECEIVE_BYTES = 64 * 1024
MESSAGE_QUEUE = 4  # messages read ahead; then TCP makes the other side wait


class WebSocketClosed(Exception):
    """Nothing comes, or can be sent, any more. The words are the other side's code and reason; 1006 if it said none."""


async def connect(
    nursery: trio.Nursery,
    stream: trio.abc.Stream,
    host: str,
    target: str,
    *,
    max_message_bytes: int,
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> WebSocket:
    """The client's end; `headers` go with the request. Raises HandshakeError when the other side is no WebSocket or refuses (in
    the nursery), WebSocketClosed."""
    try:
        return WebSocket(
            await wrap_client_stream(
                nursery,
                stream,  # type: ignore[arg-type]  # any stream will do
                host,
                target,
                extra_headers=list(headers),
                message_queue_size=MESSAGE_QUEUE,
                max_message_size=max_message_bytes,
                receive_buffer_size=RECEIVE_BYTES,
            )
        )
    except ConnectionClosed as closed:
        raise _closed(closed) from None


async def accept(
    nursery: trio.Nursery,
    stream: trio.abc.Stream,
    *,
    max_message_bytes: int,
    refuse: Callable[[dict[bytes, bytes]], int | None] = lambda _: None,
) -> WebSocket | None:
    """The server's end. `refuse` may answer a request, by its headers, with an HTTP status; then the result is None.
    Raises HandshakeError, WebSocketClosed."""
    try:
        request = await wrap_server_stream(nursery, stream, MESSAGE_QUEUE, max_message_bytes, RECEIVE_BYTES)
        status = refuse({name.lower(): value for name, value in request.headers})
        if status is not None:
            await request.reject(status)
            return None
        return WebSocket(await request.accept())
    except ConnectionClosed as closed:
        raise _closed(closed) from None


class WebSocket:
    """Methods raise WebSocketClosed once either side has closed, or the stream has broken."""

    def __init__(self, connection: WebSocketConnection) -> None:
        self._connection = connection

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
            raise WebSocketClosed(f"{ABNORMAL} closing") from None

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
            raise WebSocketClosed(f"{ABNORMAL} closing") from None

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Say goodbye, and wait for the other side's. Callers limit the time; the stream stays to be closed."""
        await self._connection.aclose(code, reason)


def _closed(closed: ConnectionClosed) -> WebSocketClosed:
    reason = closed.reason
    return WebSocketClosed(f"{reason.code} {reason.reason or reason.name}" if reason is not None else str(ABNORMAL))

"""A WebSocket over a trio stream, for links that carry many messages: what is read arrives in the reader's own task, many
messages leave in one write.

1. `connect` and `accept` make one; the stream stays its owner's to close.
2. One task calls `receive`, again and again. Any task may call `send`; messages of two senders never mix.
3. One task runs `keep_alive`: it answers pings, and finds out that the other side is gone. `receive` never writes, so that
   two sides that both wait for the other to read cannot stop each other for good.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

import trio

from protocol.errors import DecodeError
from protocol.websocket import (
    ClientHandshake,
    Close,
    FrameReader,
    Message,
    Opcode,
    Ping,
    Pong,
    ServerHandshake,
    WebSocketEvent,
    encode_frame,
)

__all__ = ["WebSocket", "WebSocketClosed", "accept", "connect"]

# Specification constants, RFC 6455 §7.4.1
NORMAL, PROTOCOL_ERROR, NO_TEXT, TOO_BIG = 1000, 1002, 1007, 1009
ABNORMAL = 1006  # no close came; never sent
MAX_REASON_BYTES = 123

# Implementation constants
RECEIVE_BYTES = 64 * 1024
HANDSHAKE_BYTES = 4096
FAREWELL_SECONDS = 1.0  # for our close to leave, once theirs has come


class WebSocketClosed(Exception):
    """Nothing comes, or can be sent, any more. `code` and `reason` are the other side's; 1006 if it said none."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}".rstrip())
        self.code = code
        self.reason = reason


async def connect(
    stream: trio.abc.Stream,
    host: str,
    target: str,
    *,
    max_message_bytes: int,
    entropy: Callable[[int], bytes] = os.urandom,
) -> WebSocket:
    """The client's end. Raises DecodeError when the other side is no WebSocket or refuses, trio.BrokenResourceError."""
    handshake = ClientHandshake(host, target, entropy)
    await stream.send_all(handshake.request)
    while (first := handshake.decode_untrusted(bytes(await stream.receive_some(HANDSHAKE_BYTES)))) is None:
        pass
    return WebSocket(stream, first, is_client=True, max_message_bytes=max_message_bytes, entropy=entropy)


async def accept(
    stream: trio.abc.Stream,
    *,
    max_message_bytes: int,
    refuse: Callable[[dict[bytes, bytes]], int | None] = lambda _: None,
) -> WebSocket | None:
    """The server's end. `refuse` may answer a request, by its headers, with an HTTP status; then, and when it asks for no
    WebSocket, the result is None. Raises DecodeError for what is no HTTP, trio.BrokenResourceError."""
    handshake = ServerHandshake()
    while not handshake.decode_untrusted(bytes(await stream.receive_some(HANDSHAKE_BYTES))):
        pass
    status = handshake.fault or refuse(dict(handshake.headers))
    if status is not None:
        await stream.send_all(handshake.reject(status))
        return None
    answer, first = handshake.accept()
    await stream.send_all(answer)
    return WebSocket(stream, first, is_client=False, max_message_bytes=max_message_bytes)


class WebSocket:
    """Methods raise WebSocketClosed once either side has closed, or the stream has broken."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        first: bytes,
        *,
        is_client: bool,
        max_message_bytes: int,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.closed: WebSocketClosed | None = None
        self._stream = stream
        self._reader = FrameReader(is_client=is_client, max_message_bytes=max_message_bytes)
        self._first = first
        self._entropy = entropy if is_client else None
        self._writing = trio.Lock()
        self._close_sent = False
        self._receiving = False
        self._over = trio.Event()
        self._ping: bytes | None = None  # theirs, to be answered: the last one, if several came (§5.5.3)
        self._awaited: bytes | None = None  # the pong to a ping of ours
        self._stir = trio.Event()

    async def receive(self) -> list[Message]:
        """The messages that came with one read: one at least. Raises DecodeError too, after which all is over."""
        self._receiving = True
        try:
            while True:
                if self.closed is not None:
                    raise self.closed
                messages = await self._receive_some()
                if messages:
                    return messages
        finally:
            self._receiving = False

    async def send(self, messages: Sequence[Message]) -> None:
        """All of them, in one write."""
        key = self._entropy
        await self._write(
            b"".join(
                [
                    encode_frame(Opcode.TEXT, message.encode(), key and key(4))
                    if isinstance(message, str)
                    else encode_frame(Opcode.BINARY, message, key and key(4))
                    for message in messages
                ]
            )
        )

    async def keep_alive(self, every: float, patience: float) -> NoReturn:
        """Ping every so many seconds. Raises trio.TooSlowError when the answer, or room to ask, takes longer."""
        next_ping, answer_due = trio.current_time() + every, math.inf
        while True:
            with trio.move_on_at(min(next_ping, answer_due)):
                await self._stir.wait()
            self._stir = trio.Event()
            now = trio.current_time()
            if self._awaited is None:
                answer_due = math.inf
            elif now >= answer_due:
                raise trio.TooSlowError
            with trio.fail_after(patience):
                if self._ping is not None:
                    payload, self._ping = self._ping, None
                    await self._write(self._frame(Opcode.PONG, payload))
                if now >= next_ping:
                    next_ping = now + every
                    if self._awaited is None:
                        answer_due, self._awaited = now + patience, os.urandom(4)
                        await self._write(self._frame(Opcode.PING, self._awaited))

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Say goodbye, and wait for the other side's. Callers limit the time; the stream stays to be closed."""
        with suppress(WebSocketClosed, DecodeError):
            await self._send_close(code, reason)
            while self.closed is None:
                if self._receiving:
                    await self._over.wait()
                else:
                    await self.receive()

    async def _receive_some(self) -> list[Message]:
        data, self._first = self._first, b""
        if not data:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                data = bytes(await self._stream.receive_some(RECEIVE_BYTES))
            if not data:
                self._end(WebSocketClosed(ABNORMAL, "the connection broke off"))
                return []
        try:
            events = self._reader.decode_untrusted(data)
        except DecodeError as error:
            code = {"websocket_not_utf8": NO_TEXT, "websocket_oversize": TOO_BIG}.get(error.reason, PROTOCOL_ERROR)
            await self._answer_close(code, error.reason)
            self._end(WebSocketClosed(ABNORMAL, error.reason))
            raise
        if len(events) == 1 and isinstance(events[0], (bytes, str)):
            return [events[0]]
        messages: list[Message] = []
        for event in events:
            if isinstance(event, (bytes, str)):
                messages.append(event)
            else:
                await self._take_control(event)
        return messages

    async def _take_control(self, event: WebSocketEvent) -> None:
        match event:
            case Ping(payload):
                self._ping = payload
                self._stir.set()
            case Pong(payload):
                if payload == self._awaited:
                    self._awaited = None
                    self._stir.set()
            case Close(code, reason):
                await self._answer_close(NORMAL, "")
                self._end(WebSocketClosed(code, reason))

    async def _answer_close(self, code: int, reason: str) -> None:
        with trio.move_on_after(FAREWELL_SECONDS), suppress(WebSocketClosed):
            await self._send_close(code, reason)

    async def _send_close(self, code: int, reason: str) -> None:
        if not self._close_sent:
            payload = code.to_bytes(2, "big") + reason.encode()[:MAX_REASON_BYTES]
            await self._write(self._frame(Opcode.CLOSE, payload), last=True)

    def _frame(self, opcode: Opcode, payload: bytes) -> bytes:
        return encode_frame(opcode, payload, self._entropy and self._entropy(4))

    async def _write(self, data: bytes, *, last: bool = False) -> None:
        async with self._writing:
            if self.closed is not None:
                raise self.closed
            if self._close_sent:
                raise WebSocketClosed(ABNORMAL, "we have closed")
            self._close_sent = last
            try:
                await self._stream.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._end(WebSocketClosed(ABNORMAL, "the connection broke off"))
                assert self.closed is not None
                raise self.closed from None
            except BaseException:  # cancelled, perhaps in the middle of a frame: nothing can follow it
                self._close_sent = True
                raise

    def _end(self, closed: WebSocketClosed) -> None:
        self.closed = self.closed or closed
        self._over.set()

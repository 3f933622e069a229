"""A WebSocket on a connection of `service.http`: hypercorn's stream of one, with the bounds that it lacks.

1. No extensions: compression costs much for every small message, and lets a small one grow to any size.
2. A message beyond the limit is answered by close 1009, and the rest of it is thrown away as it comes. One message waits for
   the application, one is being read; then the client has to wait.
3. Whatever a client sends, everything else in the process has its turn after a few frames; a client who sends many frames that
   say nothing (pings, pongs, small fragments) is told 1008, and nothing of him is read any more.
4. Whoever closes first, the other side's goodbye is awaited, for a while: a connection that is closed at once may take our last
   words with it.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from io import BytesIO, StringIO
from typing import Any

import trio
from hypercorn.protocol.events import Event, StreamClosed
from hypercorn.protocol.ws_stream import ASGIWebsocketState, WSStream
from hypercorn.typing import ASGISendEvent, WebsocketAcceptEvent
from wsproto.connection import ConnectionState
from wsproto.events import CloseConnection, Message, Ping, Pong, TextMessage

__all__ = ["WebSocketStream"]

# Specification constants, RFC 6455 §7.4.1
ABNORMAL, POLICY_VIOLATION, TOO_BIG = 1006, 1008, 1009

# Implementation constants
CLOSE_SECONDS = 2.0  # for the client's goodbye
FRAMES_AT_ONCE = 16  # a frame costs some 25 µs, whatever is in it
# Frames that say nothing: an honest client sends one every few seconds.
IDLE_RATE = 50.0  # a second
IDLE_BURST = 200.0
SMALL_FRAGMENT = 64  # bytes
FRAGMENT_OVERHEAD = 64  # bytes that a fragment counts for besides its own


class WebSocketStream(WSStream):
    def __init__(
        self,
        *arguments: Any,  # noqa: ANN401 - hypercorn's own
        max_message_bytes: int,
        on_closing: Callable[[], None],
        pause: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint,
    ) -> None:
        """`on_closing` is told that `ends_at` has changed; `pause` lets others go on."""
        super().__init__(*arguments)
        self.ends_at = math.inf
        """When to stop waiting for the client's goodbye."""
        self._max_message_bytes = max_message_bytes
        self._on_closing = on_closing
        self._pause = pause
        self._frames = 0  # since the last pause
        self._idle_left, self._counted_at = IDLE_BURST, trio.current_time()
        self._parts: StringIO | BytesIO | None = None  # of a message: one buffer, however many they are
        self._size = 0
        self._is_deaf = False  # what else comes is thrown away
        self._is_blind = False  # and not even looked at
        self._goodbye = (ABNORMAL, "")  # the client's

    @property
    def is_open(self) -> bool:
        """The handshake is done."""
        return self.state in (ASGIWebsocketState.CONNECTED, ASGIWebsocketState.CLOSED) and not self.closed

    async def ping(self) -> None:
        await self._send_wsproto_event(Ping())

    async def handle(self, event: Event) -> None:
        if not isinstance(event, StreamClosed):
            if not self._is_blind:
                await super().handle(event)
        elif not self.closed:
            self.closed = True
            if self.app_put is not None:
                await self._tell_disconnect(*self._goodbye)

    async def app_send(self, message: ASGISendEvent | None) -> None:
        if message is None and self.state is ASGIWebsocketState.CLOSED and not self.closed:
            return  # the reader waits for the client's goodbye
        await super().app_send(message)
        if message is not None and message["type"] == "websocket.close" and self.state is ASGIWebsocketState.CLOSED:
            self._begin_closing()

    async def _accept(self, message: WebsocketAcceptEvent) -> None:
        self.handshake.extensions = None
        await super()._accept(message)

    async def _handle_events(self) -> None:
        ping: Ping | None = None  # RFC 6455 §5.5.3: of several, the last is answered
        for event in self.connection.events():
            self._frames += 1
            if self._frames >= FRAMES_AT_ONCE:
                self._frames = 0
                if ping is not None:
                    await self._send_wsproto_event(ping.response())
                    ping = None
                await self._pause()
            if _says_nothing(event) and not self._may_idle():
                self._is_blind = True
                await self._end(POLICY_VIOLATION, "too many frames that say nothing")
                return
            if isinstance(event, Message):
                await self._on_message(event)
            elif isinstance(event, Ping):
                ping = event
            elif isinstance(event, CloseConnection):
                self._goodbye = (event.code, event.reason or "")
                if self.connection.state is ConnectionState.REMOTE_CLOSING:
                    await self._send_wsproto_event(event.response())
                elif self.connection.state is ConnectionState.OPEN:  # it broke the protocol
                    await self._send_wsproto_event(CloseConnection(code=event.code))
                await self.send(StreamClosed(stream_id=self.stream_id))
                return
        if ping is not None:
            await self._send_wsproto_event(ping.response())

    def _may_idle(self) -> bool:
        now = trio.current_time()
        self._idle_left = min(IDLE_BURST, self._idle_left + (now - self._counted_at) * IDLE_RATE)
        self._counted_at = now
        if self._idle_left < 1:
            return False
        self._idle_left -= 1
        return True

    async def _on_message(self, event: Message[Any]) -> None:
        if self._is_deaf:
            return
        is_text = isinstance(event, TextMessage)
        data = event.data
        self._size += len(data) if not is_text or data.isascii() else len(data.encode())
        if event.frame_finished and not event.message_finished:
            self._size += FRAGMENT_OVERHEAD
        if self._size > self._max_message_bytes:
            self._parts = None
            await self._end(TOO_BIG, "message too big")
            return
        if not event.message_finished:
            if data:
                self._parts = self._parts or (StringIO(newline="") if is_text else BytesIO())
                self._parts.write(data)
            return
        if self._parts is not None:
            self._parts.write(data)
            data = self._parts.getvalue()
        self._parts, self._size = None, 0
        assert self.app_put is not None
        text, octets = (data, None) if is_text else (None, data)
        await self.app_put({"type": "websocket.receive", "text": text, "bytes": octets})

    async def _end(self, code: int, reason: str) -> None:
        """Of our own accord."""
        await self._send_wsproto_event(CloseConnection(code=code, reason=reason))
        self.state = ASGIWebsocketState.CLOSED
        was_deaf = self._is_deaf
        self._begin_closing()
        if not was_deaf:  # else the application knows
            await self._tell_disconnect(code, reason)

    async def _tell_disconnect(self, code: int, reason: str) -> None:
        assert self.app_put is not None
        await self.app_put({"type": "websocket.disconnect", "code": code, "reason": reason})

    def _begin_closing(self) -> None:
        self._is_deaf = True
        self.ends_at = min(self.ends_at, trio.current_time() + CLOSE_SECONDS)
        self._on_closing()


def _says_nothing(event: object) -> bool:
    if isinstance(event, Message):
        return event.frame_finished and not event.message_finished and len(event.data) < SMALL_FRAGMENT
    return isinstance(event, (Ping, Pong))

"""A WebSocket on a connection of `service.http`: hypercorn's stream of one, with the bounds that it lacks.

1. No extensions: compression costs much for every small message, and lets a small one grow to any size.
2. A message beyond the limit is answered by close 1009, and the rest of it is thrown away as it comes. One message waits for
   the application, one is being read; then the client has to wait.
3. Whoever closes first, the other side's goodbye is awaited, for a while: a connection that is closed at once may take our last
   words with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import trio
from hypercorn.protocol.events import Event, StreamClosed
from hypercorn.protocol.ws_stream import ASGIWebsocketState, WSStream
from hypercorn.typing import ASGISendEvent, WebsocketAcceptEvent
from wsproto.connection import ConnectionState
from wsproto.events import CloseConnection, Message, Ping, TextMessage

__all__ = ["WebSocketStream"]

# Specification constants, RFC 6455 §7.4.1
ABNORMAL, TOO_BIG = 1006, 1009

# Implementation constants
CLOSE_SECONDS = 2.0  # for the client's goodbye


class WebSocketStream(WSStream):
    def __init__(self, *arguments: Any, max_message_bytes: int, on_closing: Callable[[], None]) -> None:  # noqa: ANN401
        """`on_closing` is told that `ends_at` has changed."""
        super().__init__(*arguments)
        self.ends_at = math.inf
        """When to stop waiting for the client's goodbye."""
        self._max_message_bytes = max_message_bytes
        self._on_closing = on_closing
        self._parts: list[str | bytes] = []
        self._size = 0
        self._is_deaf = False  # what else comes is thrown away
        self._goodbye = (ABNORMAL, "")  # the client's

    @property
    def is_open(self) -> bool:
        """The handshake is done."""
        return self.state in (ASGIWebsocketState.CONNECTED, ASGIWebsocketState.CLOSED) and not self.closed

    async def ping(self) -> None:
        await self._send_wsproto_event(Ping())

    async def handle(self, event: Event) -> None:
        if not isinstance(event, StreamClosed):
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
        for event in self.connection.events():
            if isinstance(event, Message):
                await self._on_message(event)
            elif isinstance(event, Ping):
                await self._send_wsproto_event(event.response())
            elif isinstance(event, CloseConnection):
                self._goodbye = (event.code, event.reason or "")
                if self.connection.state is ConnectionState.REMOTE_CLOSING:
                    await self._send_wsproto_event(event.response())
                elif self.connection.state is ConnectionState.OPEN:  # it broke the protocol
                    await self._send_wsproto_event(CloseConnection(code=event.code))
                await self.send(StreamClosed(stream_id=self.stream_id))

    async def _on_message(self, event: Message[Any]) -> None:
        if self._is_deaf:
            return
        self._parts.append(event.data)
        self._size += len(event.data)
        if self._size > self._max_message_bytes:
            self._parts.clear()
            await self._send_wsproto_event(CloseConnection(code=TOO_BIG, reason="message too big"))
            self.state = ASGIWebsocketState.CLOSED
            self._begin_closing()
            await self._tell_disconnect(TOO_BIG, "message too big")
        elif event.message_finished:
            is_text = isinstance(event, TextMessage)
            whole = "".join(self._parts) if is_text else b"".join(self._parts)  # type: ignore[arg-type]
            self._parts, self._size = [], 0
            assert self.app_put is not None
            text, data = (whole, None) if is_text else (None, whole)
            await self.app_put({"type": "websocket.receive", "text": text, "bytes": data})

    async def _tell_disconnect(self, code: int, reason: str) -> None:
        assert self.app_put is not None
        await self.app_put({"type": "websocket.disconnect", "code": code, "reason": reason})

    def _begin_closing(self) -> None:
        self._is_deaf = True
        self.ends_at = trio.current_time() + CLOSE_SECONDS
        self._on_closing()

# ruff: noqa: ANN401  (what is in JSON is anything)
"""A client of the Realtime API on a WebSocket; everything that it is sent is held against `openai`'s own types."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import trio
from realtime_client import OFFICIAL
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream


class SocketClient:
    def __init__(self, connection: WebSocketConnection) -> None:
        self.connection = connection
        self.events: list[dict[str, Any]] = []
        self.closed: tuple[int, str | None] | None = None
        self._heard = trio.lowlevel.ParkingLot()

    async def listen(self) -> None:
        with suppress(ConnectionClosed):
            while True:
                message = await self.connection.get_message()
                OFFICIAL.validate_json(message, strict=True)
                self.events.append(json.loads(message))
                self._heard.unpark_all()
        reason = self.connection.closed
        self.closed = (reason.code, reason.reason) if reason is not None else (1006, None)
        self._heard.unpark_all()

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]

    async def until(self, condition: Callable[[], object], seconds: float = 10.0) -> None:
        with trio.fail_after(seconds):
            while not condition():
                await self._heard.park()

    async def read(self, kind: str, number: int = 1, seconds: float = 10.0) -> dict[str, Any]:
        """The event of that kind that came as the so-manieth."""
        await self.until(lambda: len(self.of(kind)) >= number, seconds)
        return self.of(kind)[number - 1]

    async def send(self, kind: str, **fields: Any) -> None:
        await self.connection.send_message(json.dumps({"type": kind, **fields}))

    async def append(self, audio: bytes) -> None:
        await self.send("input_audio_buffer.append", audio=base64.b64encode(audio).decode())

    async def configure(self, **session: Any) -> dict[str, Any]:
        number = len(self.of("session.updated")) + 1
        await self.send("session.update", session={"type": "realtime", **session})
        updated: dict[str, Any] = (await self.read("session.updated", number))["session"]
        return updated

    def sound(self, number: int = 1) -> bytes:
        """What the response that came as the so-manieth said."""
        response_id = self.of("response.created")[number - 1]["response"]["id"]
        deltas = [event for event in self.of("response.output_audio.delta") if event["response_id"] == response_id]
        return b"".join(base64.b64decode(event["delta"]) for event in deltas)


@asynccontextmanager
async def open_socket(
    url: str, *, headers: Sequence[tuple[bytes, bytes]] = (), subprotocols: Sequence[str] = ()
) -> AsyncIterator[SocketClient]:
    """`url` begins with http. Raises ConnectionRejected."""
    parts = urlsplit(url)
    stream = await trio.open_tcp_stream(parts.hostname or "", parts.port or 80)
    async with stream, trio.open_nursery() as nursery:
        connection = await wrap_client_stream(
            nursery,
            stream,
            parts.netloc,
            f"{parts.path}?{parts.query}",
            extra_headers=list(headers),
            subprotocols=list(subprotocols),
            max_message_size=1 << 24,
        )
        client = SocketClient(connection)
        nursery.start_soon(client.listen)
        yield client
        with trio.move_on_after(1):
            await connection.aclose()
        nursery.cancel_scope.cancel()

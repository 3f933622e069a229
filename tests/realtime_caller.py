# ruff: noqa: ANN401  (what is in JSON is anything)
"""A caller of a Realtime session over the agent link: speaks PCM, writes events, keeps what comes back."""

from __future__ import annotations

import json
from typing import Any

from realtime_client import OFFICIAL

from agent.codecs import open_encoder
from protocol.codecs import Codec


class Caller:
    """`client` is the `LinkClient` of call 1, `player` plays what it hears."""

    def __init__(self, client: Any, player: Any, codec: Codec) -> None:
        self.client = client
        self.player = player
        self._codec = codec
        self._encoder = open_encoder(codec)
        self._rtp_time = 0
        self._checked = 0
        self._events: list[dict[str, Any]] = []

    @property
    def rate(self) -> int:
        return self._encoder.rate

    async def send(self, pcm: bytes) -> None:
        """As fast as it is spoken."""
        size = self._encoder.frame_samples * 2
        pieces = [pcm[place : place + size].ljust(size, b"\0") for place in range(0, len(pcm), size)]
        frames = [self._encoder.encode(piece) for piece in pieces]
        self._rtp_time = await self.client.say(frames, codec=self._codec.name, start=self._rtp_time)

    async def write(self, kind: str, **fields: Any) -> None:
        await self.client.send_data(1, 1, json.dumps({"type": kind, **fields}))

    async def configure(self, **session: Any) -> None:
        await self.write("session.update", session={"type": "realtime", **session})

    async def ask(self, text: str) -> None:
        """In writing."""
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
        await self.write("conversation.item.create", item=item)
        await self.write("response.create")

    @property
    def events(self) -> list[dict[str, Any]]:
        """What the session has sent, each held against the official types."""
        for message in self.client.data[self._checked :]:
            OFFICIAL.validate_json(message.data, strict=True)
            self._events.append(json.loads(message.data))
            self._checked += 1
        return self._events

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]

    async def read(self, kind: str, count: int = 1, seconds: float = 60.0) -> dict[str, Any]:
        """The `count`th event of that kind."""
        await self.client.until(lambda: len(self.of(kind)) >= count, seconds)
        return self.of(kind)[count - 1]

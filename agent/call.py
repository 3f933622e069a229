"""A call, as an agent sees it. This is the whole Python API: see docs/agent.md and examples/."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Set
from types import MappingProxyType
from typing import Any

import trio

from agent.codecs import Decoder, Encoder, open_decoder, open_encoder
from agent.downlink import Downlink
from agent.events import Event, Frame, Message
from agent.inbox import Inbox, Stream
from protocol.agentlink import CallClient
from protocol.codecs import Codec

__all__ = ["Call"]


class Call:
    """One caller. Iterate it for everything that happens, or `frames()` and `messages()` apart, in two tasks."""

    def __init__(
        self,
        call_id: str,
        session: dict[str, Any] | None,
        codec: Codec | None,
        inbox: Inbox,
        downlink: Downlink,
        end: Callable[[str], None],
        *,
        client: CallClient | None = None,
        expires_at: int = 0,
    ) -> None:
        self._id = call_id
        self._session = session
        self._codec = codec
        self._inbox = inbox
        self._downlink = downlink
        self._end = end
        self._client = client or CallClient()
        self._expires_at = expires_at

    @property
    def id(self) -> str:
        """The name of the call in every log line and metric of the edge."""
        return self._id

    @property
    def session(self) -> dict[str, Any] | None:
        """The `session` object that the caller's client sent with its offer."""
        return self._session

    @property
    def client(self) -> CallClient:
        """Who placed the call: `key`, the name of the API key, and `safety_identifier`; each empty if it is not known."""
        return self._client

    @property
    def expires_at(self) -> int:
        """When the edge will end the call, in seconds since 1970; 0 if it did not say."""
        return self._expires_at

    @property
    def codec(self) -> Codec | None:
        """The negotiated codec, in both directions; None for a call without audio."""
        return self._codec

    @property
    def channels(self) -> Mapping[int, str]:
        """The caller's open data channels: id → label."""
        return MappingProxyType(self._downlink.channels)

    @property
    def controllers(self) -> Set[int]:
        """The channels of those who have attached to the call from the side (docs/signalling.md#sideband)."""
        return frozenset(self._downlink.controllers)

    @property
    def ended(self) -> str | None:
        """Why the call ended; None while it goes on."""
        return self._downlink.ended

    @property
    def played(self) -> float:
        """Milliseconds of the agent's audio that were really played to the caller, as far as reported (every 200 ms)."""
        return self._downlink.played_ms

    @property
    def ahead(self) -> float:
        """Milliseconds of the agent's audio that were sent and are, as far as reported, still to be played."""
        return self._downlink.ahead_ms

    def __aiter__(self) -> Stream[Event]:
        return self._inbox.events()

    def frames(self) -> Stream[Frame]:
        """The caller's audio. At most one second waits to be read: older frames are dropped, `frame.gap` tells."""
        return self._inbox.frames()

    def messages(self) -> Stream[Message]:
        """The data messages of the caller, and of controllers."""
        return self._inbox.messages()

    def send_frame(self, payload: bytes) -> Coroutine[Any, Any, None]:
        """Play one encoded frame after everything sent before. Waits while more than 5 s are still to be played."""
        return self._downlink.send_frame(payload)

    async def send_message(self, data: str | bytes, channel: int | None = None) -> bool:
        """Send text or binary data; without `channel`, on `oai-events` or else on the channel that was opened first.

        Waits while the caller takes data too slowly. False if that channel is not open (any more).
        """
        return await self._downlink.send_message(data, channel)

    def send_message_nowait(self, data: str | bytes, channel: int | None = None) -> bool:
        """The same without waiting: False also if it would have to wait."""
        return self._downlink.send_message_nowait(data, channel)

    async def flush(self) -> float:
        """Stop playing now: throw away what was sent and not played yet. Returns `played`, exact at this moment."""
        return await self._downlink.flush()

    async def wait_played(self) -> float:
        """Until everything that was sent has been played. Returns `played`."""
        return await self._downlink.wait_played()

    async def end(self, reason: str = "agent_ended") -> None:
        """End the call, at once: audio that was not played yet is cut (`wait_played()` first, to let it finish).

        `reason` is one word of snake_case that metrics, logs and the caller's client get to see.
        """
        await trio.lowlevel.checkpoint()
        self._end(reason)

    def decoder(self) -> Decoder:
        """A decoder from this call's frames to PCM. Raises CodecUnavailable (for Opus without libopus)."""
        return open_decoder(self._codec)

    def encoder(self) -> Encoder:
        """An encoder from PCM to this call's frames. Raises CodecUnavailable."""
        return open_encoder(self._codec)

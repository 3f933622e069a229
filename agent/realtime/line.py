"""The line of a session: how its events and its audio come and go. The driver knows no more of the world than this.

1. `CallLine`, a call: frames of the negotiated codec both ways, events on data channels, controllers beside the caller.
2. `SocketLine` (socket_line.py), a WebSocket: all of it in events, and the client plays by itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol

from agent.call import Call
from agent.codecs import Encoder
from agent.events import Event, Frame
from protocol.agentlink import CallClient
from protocol.realtime.settings import Settings

__all__ = ["CallLine", "FrameDecoder", "Line", "Player"]

# Implementation constants
NO_AUDIO_SECONDS = 0.6


class FrameDecoder(Protocol):
    @property
    def rate(self) -> int:
        """Samples a second."""

    def decode_frame(self, frame: Frame) -> bytes:
        """PCM that goes on where that of the last frame ended."""


class Player(Protocol):
    """What we play to the caller, as long as we do."""

    @property
    def played(self) -> float:
        """Milliseconds that were really played."""

    @property
    def ahead(self) -> float:
        """Milliseconds that were sent and are still to be played."""

    async def send_frame(self, payload: bytes) -> None:
        """Play a frame after those sent before. Waits while more than 5 s are still to be played."""

    async def flush(self) -> float:
        """Stop playing now. Returns `played`."""


class Line(Protocol):
    @property
    def id(self) -> str:
        """The name of the call, or of the session, in logs."""

    @property
    def session(self) -> dict[str, Any] | None:
        """The configuration that the client gave before anything else."""

    @property
    def client(self) -> CallClient:
        """Who is at the other end."""

    @property
    def expires_at(self) -> int:
        """When it will be ended, in seconds since 1970; 0 if that is not known."""

    @property
    def ended(self) -> str | None:
        """Why it ended; None while it goes on."""

    @property
    def player(self) -> Player | None:
        """None: audio goes in events, both ways, and the client plays what it is sent."""

    @property
    def pause_seconds(self) -> float:
        """No frame for so long: whoever spoke does so no more. inf where audio comes when it likes."""

    def events(self) -> AsyncIterator[Event]:
        """Whatever happens on it, until it ends. Survives a time-out around one step."""

    def decoder(self) -> FrameDecoder | None:
        """Of its frames; None without audio."""

    def encoder(self) -> Encoder:
        """To its frames: for one response."""

    def configure(self, settings: Settings) -> None:
        """The session is to be like this from now on."""

    def hear(self, audio: bytes) -> None:
        """Audio that came in an event: it comes back as frames."""

    async def send_message(self, data: str, channel: int | None = None) -> bool:
        """An event to the caller's client, or to the controller with that channel. Waits while it is taken too slowly;
        False if there is nobody."""

    async def end(self, reason: str) -> None:
        """End it, at once."""


class CallLine:
    """A call of WebRTC. Formats of audio are what its offer agreed on, whatever its session says."""

    pause_seconds = NO_AUDIO_SECONDS

    def __init__(self, call: Call) -> None:
        self._call = call
        self.id = call.id
        self.session = call.session
        self.client = call.client
        self.expires_at = call.expires_at
        self.player: Player = call
        self.events = call.__aiter__
        self.encoder = call.encoder
        self.end = call.end

    @property
    def ended(self) -> str | None:
        return self._call.ended

    def decoder(self) -> FrameDecoder | None:
        return self._call.decoder() if self._call.codec is not None else None

    def configure(self, settings: Settings) -> None:
        pass

    def hear(self, audio: bytes) -> None:
        pass

    async def send_message(self, data: str, channel: int | None = None) -> bool:
        return await self._call.send_message(data, channel)

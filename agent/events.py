"""What an agent hears of its call: audio frames, data messages, keys pressed, and what became of the audio it sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from protocol.agentlink import PlayedReason

__all__ = ["CallEnded", "ChannelClosed", "ChannelOpened", "Digit", "Draining", "Event", "Frame", "Message", "Played"]


class CallEnded(Exception):
    """The call is over, so nothing can be sent any more. An agent need not catch it: it ends the agent quietly."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Frame(NamedTuple):
    """One audio frame of the caller, still encoded (`call.codec`, `call.decoder()`). A tuple: one is made every 20 ms."""

    payload: bytes
    rtp_time: int
    duration_ms: float
    marker: bool = False
    """The caller's client says that speech begins here (the RTP marker bit)."""
    gap: bool = False
    """Audio before this frame is missing: lost on the way, or dropped because the agent was too slow. How much, `rtp_time`
    tells: `call.decoder().decode_frame` fills it."""
    recovered: bool = False
    """This frame was lost, and came all the same: sent again, or as a copy in another packet."""
    fec: bool = False
    """With `gap`: the payload holds a copy of the audio just before it (Opus in-band FEC)."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a data channel, or of a controller: `str` for text, `bytes` for binary."""

    data: str | bytes
    channel: int


@dataclass(frozen=True, slots=True)
class ChannelOpened:
    """The caller opened a data channel; or, with `sideband`, a controller has attached to the call from the side."""

    channel: int
    label: str
    protocol: str
    sideband: bool = False


@dataclass(frozen=True, slots=True)
class ChannelClosed:
    channel: int


@dataclass(frozen=True, slots=True)
class Digit:
    """The caller has begun to press a key of the telephone: one of 0-9 * # A-D."""

    digit: str


@dataclass(frozen=True, slots=True)
class Played:
    """How much of the agent's audio the caller's line has really played, in ms since the call began."""

    total_ms: float
    buffered_ms: float
    reason: PlayedReason


@dataclass(frozen=True, slots=True)
class Draining:
    """The edge under this call is leaving: the call may finish in peace, but soon."""


Event: TypeAlias = Frame | Message | ChannelOpened | ChannelClosed | Digit | Played | Draining

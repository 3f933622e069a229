"""What `Association.poll` returns, and the errors of its commands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from protocol.errors import LocalError

__all__ = [
    "AssociationClosed",
    "AssociationUp",
    "ChannelClosed",
    "ChannelLimit",
    "ChannelMessage",
    "ChannelOpened",
    "ChannelOverrun",
    "ChannelWritable",
    "MessageTooLarge",
    "Output",
    "Packet",
    "UnknownChannel",
]


@dataclass(frozen=True, slots=True)
class Packet:
    """One SCTP packet, to be sent as one DTLS record."""

    data: bytes


@dataclass(frozen=True, slots=True)
class AssociationUp:
    pass


@dataclass(frozen=True, slots=True)
class ChannelOpened:
    """`max_lifetime` is in seconds; with neither limit the channel is reliable."""

    channel: int
    label: str
    protocol: str
    ordered: bool
    max_retransmits: int | None = None
    max_lifetime: float | None = None


@dataclass(frozen=True, slots=True)
class ChannelMessage:
    channel: int
    data: str | bytes


@dataclass(frozen=True, slots=True)
class ChannelOverrun:
    """The peer sent a message larger than we had said that we take. It was dropped; the channel goes on."""

    channel: int


@dataclass(frozen=True, slots=True)
class ChannelWritable:
    """`send` had returned False; there is room again."""

    channel: int


@dataclass(frozen=True, slots=True)
class ChannelClosed:
    channel: int


@dataclass(frozen=True, slots=True)
class AssociationClosed:
    """The last event; the association is dead and silent after it."""

    reason: str


Output: TypeAlias = (
    Packet
    | AssociationUp
    | ChannelOpened
    | ChannelMessage
    | ChannelOverrun
    | ChannelWritable
    | ChannelClosed
    | AssociationClosed
)


class MessageTooLarge(LocalError):
    """Larger than the peer's a=max-message-size allows."""


class UnknownChannel(LocalError):
    """There is no such channel, or no more: ChannelClosed was told before."""


class ChannelLimit(LocalError):
    """No stream identifier is free, or the configured number of channels is open."""

"""What a call and the backend that answers it are to each other.

All commands are synchronous and never block: what cannot be delivered yet waits in bounded queues or is dropped and
counted. What a backend has to say comes to the engine's inbox, as `BackendEvent`s that name the attachment they belong
to, so that words of an earlier attachment cannot be taken for those of the present one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias

from protocol.agentlink import CallClient, DataMessage, MediaRecord
from protocol.codecs import Codec
from transceiver.media import Played, Uplink

__all__ = [
    "Accepted",
    "Attachment",
    "Backend",
    "BackendEvent",
    "Call",
    "Ended",
    "Flushed",
    "Inbox",
    "Lost",
    "MediaFrame",
    "Refused",
]


@dataclass(frozen=True, slots=True)
class Accepted:
    """The agent takes the call."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The agent does not take it; another may."""

    reason: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The way to the agent is gone."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The agent hung up."""

    reason: str


@dataclass(frozen=True, slots=True)
class Flushed:
    """The agent wants silence: drop what was not played."""


BackendEvent: TypeAlias = Accepted | Refused | Lost | Ended | Flushed | MediaRecord | DataMessage


class Call(Protocol):
    """What a backend may know of a call."""

    call_id: str
    session: bytes | None  # JSON text of an object
    client: CallClient | None
    expires_at: int  # seconds since 1970

    @property
    def codec(self) -> Codec | None:
        """None for a call without audio."""

    @property
    def uplink(self) -> Uplink | None:
        """Where the caller's frames wait to be taken."""


class Attachment(Protocol):
    """One call at one agent. A `channel` is a data channel of the caller's, or a controller."""

    @property
    def takes_controllers(self) -> bool:
        """Whether there is anything to control."""

    @property
    def has_room(self) -> bool:
        """A data message may go to it now; else look again a little later."""

    def audio_waits(self) -> None:
        """Frames wait in the call's uplink: take them with the next message."""

    def channel_opened(self, channel: int, label: str, protocol: str) -> None: ...

    def channel_closed(self, channel: int) -> None: ...

    def channel_blocked(self, channel: int) -> None: ...

    def channel_writable(self, channel: int) -> None: ...

    def message(self, channel: int, data: str | bytes) -> None: ...

    def played(self, played: Played) -> None: ...

    def digit(self, digit: str) -> None: ...

    def end(self, reason: str) -> None:
        """Say goodbye; nothing comes from this attachment afterwards."""


class Backend(Protocol):
    def open(self, call: Call) -> Attachment | None:
        """Offer a call to an agent; None when none can be asked now. Its answer comes to the inbox."""

    @property
    def codecs(self) -> tuple[Codec, ...]:
        """What the agents understand."""

    @property
    def name(self) -> str:
        """What answers here, for people; empty while nothing does."""

    @property
    def models(self) -> tuple[str, ...]:
        """What a session's `model` may name; whoever names nothing gets the first."""


MediaFrame: TypeAlias = tuple[Call, Attachment, MediaRecord]


class Inbox(Protocol):
    def post(self, call: Call, attachment: Attachment | None, event: BackendEvent) -> None:
        """Leave an event for a call; it is dealt with in the engine's next turn."""

    def post_media(self, frames: list[MediaFrame]) -> None:
        """Leave the frames of many calls: the same as `post` for each of them, in order, at one price."""

"""The control messages of the agent link: JSON text messages, one struct each, told apart by their `type`.

The flow of one link, and of one call on it (T = transceiver, the WebSocket client; A = agent, the server):

1. both sides send `hello` as their first message; A names the codecs it understands, best first;
2. T→A `call.start` gives the call a `handle`, A answers `call.accept` or `call.refuse`;
3. T→A `channel.open` for each data channel of the caller, and for each controller that has attached to the call from the
   side; audio and data travel as binary messages (framing.py);
4. T→A tells how far the audio of A was really played (framing.py); A→T `call.flush` drops what was not (barge-in);
5. `call.digit` tells of a key that the caller pressed;
6. `call.end`, from either side, ends the call, unanswered; T never uses a handle twice on one link;
7. `drain` from T: it is leaving, calls may finish; from A: give me no new calls.

Unknown types and unknown fields are no error of the link: a receiver counts and ignores the former, ignores the latter.

Sessions of the Realtime API that come by WebSocket are not carried by the link: each has a WebSocket of its own to
REALTIME_PATH of an agent that says `sessions`. Its subprotocol is REALTIME_PROTOCOL; the first message is a `SessionStart`
of T, and whatever follows are the API's events.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, TypeAlias, TypeVar, get_args

import msgspec
from msgspec import Meta

from protocol.errors import DecodeError, LocalError

__all__ = [
    "FIRST_CONTROLLER",
    "LAST_CHANNEL",
    "LINK_VERSION",
    "MAX_AGENTS",
    "MAX_CONTROL_BYTES",
    "MAX_SESSION_MESSAGE_BYTES",
    "REALTIME_PATH",
    "REALTIME_PROTOCOL",
    "AgentDrain",
    "AgentHello",
    "AgentMessage",
    "CallAccept",
    "CallClient",
    "CallDigit",
    "CallEnd",
    "CallFlush",
    "CallRefuse",
    "CallStart",
    "ChannelBlocked",
    "ChannelClosed",
    "ChannelOpen",
    "ChannelWritable",
    "Drain",
    "PlayedReason",
    "SessionStart",
    "TransceiverHello",
    "TransceiverMessage",
    "decode_agent_message_untrusted",
    "decode_session_start_untrusted",
    "decode_transceiver_message_untrusted",
    "encode_message",
]

# Specification constants.
LINK_VERSION = 3
FIRST_CONTROLLER = 0x1_0000  # channels from here on are no data channels (SCTP's ids end before), but controllers
LAST_CHANNEL = 0x1_FFFF
REALTIME_PATH = "/v1/realtime"
REALTIME_PROTOCOL = "antiphon-session"
MAX_SESSION_MESSAGE_BYTES = 16 * 1024 * 1024  # of such a session: an event with 15 MiB of base64

# Implementation constants. The session object comes from an HTTP body of at most 64 KiB; JSON escapes may double it.
MAX_CONTROL_BYTES = 192 * 1024
MAX_CODECS = 16
MAX_AGENTS = 16

Handle: TypeAlias = Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)]
ChannelId: TypeAlias = Annotated[int, Meta(ge=0, le=LAST_CHANNEL)]
Name: TypeAlias = Annotated[str, Meta(max_length=128)]
Word: TypeAlias = Annotated[str, Meta(max_length=256)]
Label: TypeAlias = Annotated[str, Meta(max_length=65535)]  # RFC 8832 §5.1: its length is an uint16 of bytes
Version: TypeAlias = Annotated[int, Meta(ge=1, le=0xFFFF)]


class PlayedReason(Enum):
    """Why a played report was sent (framing.py)."""

    PROGRESS = "progress"  # at most every 200 ms while audio plays
    DRAINED = "drained"  # everything that was sent has been played
    FLUSHED = "flushed"  # the answer to one `call.flush`: playing stopped here


class TransceiverHello(msgspec.Struct, frozen=True, tag_field="type", tag="hello"):
    """T→A, first message."""

    version: Version
    transceiver: Name


class AgentHello(msgspec.Struct, frozen=True, tag_field="type", tag="hello"):
    """A→T, first message. `codecs`: what this agent understands, best first; empty means that it takes anything."""

    version: Version
    agent: Name
    codecs: Annotated[tuple[Name, ...], Meta(max_length=MAX_CODECS)] = ()
    also: Annotated[tuple[Name, ...], Meta(max_length=MAX_AGENTS)] = ()
    """Other agents behind it, that a caller may name as the `model` of its session."""
    sessions: Annotated[tuple[Name, ...], Meta(max_length=MAX_AGENTS + 1)] = ()
    """Those of all these that serve sessions by WebSocket."""


class CallClient(msgspec.Struct, frozen=True):
    """Who placed a call: the name of the API key, and what the client's `OpenAI-Safety-Identifier` says; each may be empty."""

    key: Name = ""
    safety_identifier: Word = ""


class CallStart(msgspec.Struct, frozen=True, tag_field="type", tag="call.start"):
    """T→A. `codec` is an encoding name as in SDP (`opus`, `PCMU`, `PCMA`), empty for a call without audio; `expires_at` is
    when the call will be ended, in seconds since 1970 (never sooner, but later by its set-up), 0 if that is not known."""

    handle: Handle
    call_id: Name
    codec: Name
    clock_rate: Annotated[int, Meta(ge=0, le=384_000)]
    channels: Annotated[int, Meta(ge=0, le=8)]
    session: dict[str, Any] | None = None
    client: CallClient | None = None
    expires_at: Annotated[int, Meta(ge=0)] = 0


class ChannelOpen(msgspec.Struct, frozen=True, tag_field="type", tag="channel.open"):
    """T→A. The caller has opened a data channel, or a controller (from FIRST_CONTROLLER on) has attached to the call."""

    handle: Handle
    channel: ChannelId
    label: Label
    protocol: Label = ""


class ChannelClosed(msgspec.Struct, frozen=True, tag_field="type", tag="channel.closed"):
    """T→A."""

    handle: Handle
    channel: ChannelId


class ChannelBlocked(msgspec.Struct, frozen=True, tag_field="type", tag="channel.blocked"):
    """T→A. The caller takes data too slowly: send nothing more on this channel until `channel.writable`."""

    handle: Handle
    channel: ChannelId


class ChannelWritable(msgspec.Struct, frozen=True, tag_field="type", tag="channel.writable"):
    """T→A. The end of `channel.blocked`."""

    handle: Handle
    channel: ChannelId


class CallDigit(msgspec.Struct, frozen=True, tag_field="type", tag="call.digit"):
    """T→A. The caller has begun to press a key: one of 0-9 * # A-D, by RFC 4733 in the audio stream."""

    handle: Handle
    digit: Annotated[str, Meta(min_length=1, max_length=1)]


class CallEnd(msgspec.Struct, frozen=True, tag_field="type", tag="call.end"):
    """Either way. `reason` is the word that metrics, logs and the caller's message use."""

    handle: Handle
    reason: Word


class Drain(msgspec.Struct, frozen=True, tag_field="type", tag="drain"):
    """T→A. This transceiver is leaving: running calls may finish, no new ones will come."""


class CallAccept(msgspec.Struct, frozen=True, tag_field="type", tag="call.accept"):
    """A→T."""

    handle: Handle


class CallRefuse(msgspec.Struct, frozen=True, tag_field="type", tag="call.refuse"):
    """A→T. The call never started here; the transceiver may try another agent."""

    handle: Handle
    reason: Word


class CallFlush(msgspec.Struct, frozen=True, tag_field="type", tag="call.flush"):
    """A→T. Drop all audio of this call that was not played yet, now; answered by `call.played` reason `flushed`.

    Media that follows on the link is new audio, to be played. It overtakes queued audio on both sides.
    """

    handle: Handle


class AgentDrain(msgspec.Struct, frozen=True, tag_field="type", tag="drain"):
    """A→T. This agent is leaving: running calls may finish, new ones will be refused."""


class SessionStart(msgspec.Struct, frozen=True, tag_field="type", tag="session.start"):
    """T→A, first message on the WebSocket of a session. `session`: its configuration, as the client gave it; the rest as in
    `call.start`."""

    version: Version
    call_id: Name
    session: dict[str, Any] | None = None
    client: CallClient | None = None
    expires_at: Annotated[int, Meta(ge=0)] = 0


TransceiverMessage: TypeAlias = (
    TransceiverHello
    | CallStart
    | ChannelOpen
    | ChannelClosed
    | ChannelBlocked
    | ChannelWritable
    | CallDigit
    | CallEnd
    | Drain
)
AgentMessage: TypeAlias = AgentHello | CallAccept | CallRefuse | CallFlush | CallEnd | AgentDrain


_T = TypeVar("_T")


class _Tag(msgspec.Struct):
    type: str


_encoder = msgspec.json.Encoder()
_transceiver_decoder: msgspec.json.Decoder[TransceiverMessage] = msgspec.json.Decoder(TransceiverMessage)
_agent_decoder: msgspec.json.Decoder[AgentMessage] = msgspec.json.Decoder(AgentMessage)
_session_decoder: msgspec.json.Decoder[SessionStart] = msgspec.json.Decoder(SessionStart)
_tag_decoder = msgspec.json.Decoder(_Tag)


def _tags(union: object) -> frozenset[object]:
    return frozenset(struct.__struct_config__.tag for struct in get_args(union))


_TRANSCEIVER_TYPES = _tags(TransceiverMessage)
_AGENT_TYPES = _tags(AgentMessage)


def encode_message(message: TransceiverMessage | AgentMessage | SessionStart) -> str:
    """The JSON text of a control message."""
    data = _encoder.encode(message)
    if len(data) > MAX_CONTROL_BYTES:
        raise LocalError(f"a control message of {len(data)} bytes is over the bound of {MAX_CONTROL_BYTES}")
    return data.decode()


def decode_transceiver_message_untrusted(data: str | bytes) -> TransceiverMessage:
    """What an agent receives. Reasons: link_oversize, link_json, link_unknown_type, link_invalid."""
    return _decode(_transceiver_decoder, _TRANSCEIVER_TYPES, data)


def decode_agent_message_untrusted(data: str | bytes) -> AgentMessage:
    """What a transceiver receives. Reasons: link_oversize, link_json, link_unknown_type, link_invalid."""
    return _decode(_agent_decoder, _AGENT_TYPES, data)


def decode_session_start_untrusted(data: str | bytes) -> SessionStart:
    """Reasons: link_oversize, link_json, link_unknown_type, link_invalid."""
    return _decode(_session_decoder, frozenset({"session.start"}), data)


def _decode(decoder: msgspec.json.Decoder[_T], types: frozenset[object], data: str | bytes) -> _T:
    if len(data) > MAX_CONTROL_BYTES:
        raise DecodeError("link_oversize")
    try:
        return decoder.decode(data)
    except msgspec.ValidationError:
        # Only now, off the usual path, is it worth asking whether a newer peer said something that we do not know.
        raise DecodeError(_why_invalid(data, types)) from None
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise DecodeError("link_json") from None


def _why_invalid(data: str | bytes, types: frozenset[object]) -> str:
    try:
        tag = _tag_decoder.decode(data).type
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return "link_invalid"
    return "link_invalid" if tag in types else "link_unknown_type"

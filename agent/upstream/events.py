"""The events that a bridge looks into, on their way between the client and the service, and those that it makes itself.

Of most events only the type is read; they pass as the text that they came as. Fields may be anything: who needs one checks it
(`word`, `number`).
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from typing import Any, Final

import msgspec

from agent.realtime.ids import new_id
from protocol.errors import DecodeError
from protocol.wire import Entropy

__all__ = [
    "MAX_CHANNEL_BYTES",
    "OURS",
    "ClientHead",
    "EventMaker",
    "Purpose",
    "ServiceEvent",
    "append_event",
    "decode_client_head_untrusted",
    "decode_object_untrusted",
    "decode_service_event_untrusted",
    "encode",
    "fits_channel",
    "number",
    "without_sound",
    "word",
]

# Specification constants
MAX_CHANNEL_BYTES: Final = 256 * 1024  # of one event on the data channel
OURS: Final = {"type": "audio/pcm", "rate": 24_000}

# Implementation constants
MAX_WORD = 512
MAX_SENT = 512  # events of ours that the service might still refuse

_ENCODER = msgspec.json.Encoder()


class ClientHead(msgspec.Struct):
    type: str
    event_id: Any = None


class ServiceEvent(msgspec.Struct):
    """What a bridge may need of an event of the service; objects inside stay undecoded, empty if there is none."""

    type: str
    event_id: Any = None
    response_id: Any = None
    item_id: Any = None
    content_index: Any = None
    audio_end_ms: Any = None
    previous_item_id: Any = None
    delta: Any = None
    transcript: Any = None
    item: msgspec.Raw = msgspec.Raw(b"")
    session: msgspec.Raw = msgspec.Raw(b"")
    response: msgspec.Raw = msgspec.Raw(b"")
    error: msgspec.Raw = msgspec.Raw(b"")


_HEAD = msgspec.json.Decoder(ClientHead)
_EVENT = msgspec.json.Decoder(ServiceEvent)


def decode_client_head_untrusted(data: str | bytes) -> ClientHead:
    """Raises DecodeError: it is no JSON object with a `type`."""
    try:
        return _HEAD.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        raise DecodeError("not_an_event") from None


def decode_service_event_untrusted(data: str | bytes) -> ServiceEvent:
    """Raises DecodeError: it is no JSON object with a `type`."""
    try:
        return _EVENT.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        raise DecodeError("not_an_event") from None


def decode_object_untrusted(data: str | bytes | msgspec.Raw) -> dict[str, Any]:
    """A JSON object; {} for anything else."""
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return {}
    return value if isinstance(value, dict) else {}


def word(value: object) -> str | None:
    """An id, or another short word; None for anything else."""
    return value if isinstance(value, str) and 0 < len(value) <= MAX_WORD else None


def number(value: object) -> int | None:
    """A count, an index, milliseconds; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31 else None


def encode(event: dict[str, Any]) -> str | None:
    """None for what was JSON once and cannot be again (a number beyond 64 bits)."""
    try:
        return _ENCODER.encode(event).decode()
    except (OverflowError, ValueError, TypeError, RecursionError):
        return None


def fits_channel(text: str) -> bool:
    return len(text) * 3 <= MAX_CHANNEL_BYTES or len(text.encode("utf-8", "replace")) <= MAX_CHANNEL_BYTES


def append_event(base64: str) -> str:
    return f'{{"type":"input_audio_buffer.append","audio":"{base64}"}}'


def without_sound(text: str) -> str | None:
    """An event with an item, without the sound of its parts. None if it is another event."""
    event = decode_object_untrusted(text)
    item = event.get("item")
    parts = item.get("content") if isinstance(item, dict) else None
    if not isinstance(parts, list) or not isinstance(item, dict):
        return None
    bare = [{k: v for k, v in part.items() if k != "audio"} if isinstance(part, dict) else part for part in parts]
    return encode({**event, "item": {**item, "content": bare}})


class Purpose(enum.Enum):
    """What an event of ours to the service is for."""

    UPDATE = "a session.update of the client's that had no id"
    REPLAY = "all session.updates again"
    ITEM = "an item of an earlier session"
    TRUNCATE = "what was heard of an item"


class EventMaker:
    """Events of ours: to the client as the service's would look, to the service with ids that we know again."""

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy
        self._sent: OrderedDict[str, Purpose] = OrderedDict()

    def id_for(self, purpose: Purpose) -> str:
        """The id of an event that goes to the service."""
        event_id = new_id("event", self._entropy)
        self._sent[event_id] = purpose
        if len(self._sent) > MAX_SENT:
            self._sent.popitem(last=False)
        return event_id

    def purpose_of(self, event_id: str | None) -> Purpose | None:
        """What the service speaks of in an error; None: not of an event of ours."""
        return self._sent.pop(event_id, None) if event_id is not None else None

    def tell(self, kind: str, **fields: Any) -> str:  # noqa: ANN401
        """For the client."""
        event = {"type": kind, "event_id": new_id("event", self._entropy), **fields}
        return encode(event) or ""

    def error(self, code: str, message: str, event_id: str | None = None, kind: str = "server_error") -> str:
        """`event_id`: the client's, of the event that is to blame."""
        body = {"type": kind, "code": code, "message": message, "param": None, "event_id": event_id}
        return self.tell("error", error=body)

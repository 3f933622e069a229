"""The events that clients send, read and checked.

What is wrong with one is an ApiError with the path of the field; fields that we do not know are passed over, as clients
grow them faster than servers.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeAlias, get_args

import msgspec
from msgspec import Meta

from agent.realtime.items import Identifier, InputAudio, Item, ItemReference, Message
from protocol.realtime.errors import ApiError, Code
from protocol.realtime.settings import FunctionTool, Modality, ShortText, ToolChoice
from protocol.realtime.shapes import raise_for

__all__ = [
    "MAX_APPEND_BYTES",
    "MAX_EVENT_BYTES",
    "ClientEvent",
    "InputAppend",
    "InputClear",
    "InputCommit",
    "ItemCreate",
    "ItemDelete",
    "ItemRetrieve",
    "ItemTruncate",
    "OutputClear",
    "ResponseCancel",
    "ResponseCreate",
    "ResponseSettings",
    "SessionUpdate",
    "decode_client_event_untrusted",
    "event_id_of_untrusted",
]

# Specification constants
MAX_EVENT_BYTES = 256 * 1024
MAX_APPEND_BYTES = 15 * 1024 * 1024  # of base64 in an `input_audio_buffer.append`

# Implementation constants
APPEND_OVERHEAD = 4096  # of its other fields
PIECE_LENGTH = 64 * 1024  # of base64 that is decoded at once

EventId: TypeAlias = Annotated[str, Meta(max_length=512)]
Milliseconds: TypeAlias = Annotated[int, Meta(ge=0, le=1 << 40)]


class _Event(msgspec.Struct, tag_field="type", frozen=True, kw_only=True):
    event_id: EventId | None = None


class SessionUpdate(_Event, tag="session.update", frozen=True, kw_only=True):
    session: dict[str, Any]


class InputAppend(_Event, tag="input_audio_buffer.append", frozen=True, kw_only=True):
    audio: str

    def decode(self) -> Iterator[bytes]:
        """Piece by piece; it is all valid only once the last has come. Raises ApiError."""
        audio = self.audio
        if len(audio) > MAX_APPEND_BYTES:
            raise ApiError(Code.TOO_LARGE, f"The audio has more than {MAX_APPEND_BYTES} bytes of base64.", "audio")
        try:
            for place in range(0, len(audio), PIECE_LENGTH):
                piece = audio[place : place + PIECE_LENGTH]
                if piece[-1] == "=" and place + PIECE_LENGTH < len(audio):
                    raise self._invalid()
                yield base64.b64decode(piece, validate=True)
        except (binascii.Error, ValueError):  # the latter for letters that are not ASCII
            raise self._invalid() from None

    def _invalid(self) -> ApiError:
        message = "Invalid 'audio'. Expected base64-encoded audio bytes, but got an invalid value."
        return ApiError(Code.INVALID_VALUE, message, "audio")


class InputCommit(_Event, tag="input_audio_buffer.commit", frozen=True, kw_only=True):
    pass


class InputClear(_Event, tag="input_audio_buffer.clear", frozen=True, kw_only=True):
    pass


class ItemCreate(_Event, tag="conversation.item.create", frozen=True, kw_only=True):
    item: Item
    previous_item_id: Identifier | None = None
    """None: at the end; `root`: at the beginning."""


class ItemRetrieve(_Event, tag="conversation.item.retrieve", frozen=True, kw_only=True):
    item_id: Identifier


class ItemTruncate(_Event, tag="conversation.item.truncate", frozen=True, kw_only=True):
    item_id: Identifier
    content_index: Annotated[int, Meta(ge=0, le=64)]
    audio_end_ms: Milliseconds


class ItemDelete(_Event, tag="conversation.item.delete", frozen=True, kw_only=True):
    item_id: Identifier


class ResponseOutput(msgspec.Struct, frozen=True, kw_only=True):
    voice: ShortText | None = None
    format: dict[str, Any] | None = None


class ResponseAudio(msgspec.Struct, frozen=True, kw_only=True):
    output: ResponseOutput | None = None


class ResponseSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What one response does otherwise than the session says; None: as the session."""

    conversation: Literal["auto", "none"] = "auto"
    """`none`: out of band, nothing of it stays in the conversation."""
    input: list[Item | ItemReference] | None = None
    instructions: str | None = None
    output_modalities: Annotated[list[Modality], Meta(min_length=1, max_length=1)] | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: ToolChoice | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=4096)] | Literal["inf"] | None = None
    metadata: Annotated[dict[ShortText, Annotated[str, Meta(max_length=512)]], Meta(max_length=16)] | None = None
    audio: ResponseAudio | None = None


class ResponseCreate(_Event, tag="response.create", frozen=True, kw_only=True):
    response: ResponseSettings | None = None


class ResponseCancel(_Event, tag="response.cancel", frozen=True, kw_only=True):
    response_id: Identifier | None = None


class OutputClear(_Event, tag="output_audio_buffer.clear", frozen=True, kw_only=True):
    pass


ClientEvent: TypeAlias = (
    SessionUpdate
    | InputAppend
    | InputCommit
    | InputClear
    | ItemCreate
    | ItemRetrieve
    | ItemTruncate
    | ItemDelete
    | ResponseCreate
    | ResponseCancel
    | OutputClear
)

_TYPES = frozenset(kind.__struct_config__.tag for kind in get_args(ClientEvent))
_DECODER: msgspec.json.Decoder[ClientEvent] = msgspec.json.Decoder(ClientEvent)
_APPEND: msgspec.json.Decoder[ClientEvent] = msgspec.json.Decoder(InputAppend)


class _Head(msgspec.Struct):
    type: Any = None
    event_id: Any = None


_HEAD = msgspec.json.Decoder(_Head)


def event_id_of_untrusted(data: str | bytes) -> str | None:
    """The client's name of an event that may be wrong otherwise: errors echo it."""
    try:
        event_id = _HEAD.decode(data).event_id
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None
    return event_id if isinstance(event_id, str) and len(event_id) <= 512 else None


def decode_client_event_untrusted(data: str | bytes, *, carries_audio: bool = False) -> ClientEvent:
    """Raises ApiError. `carries_audio`: an event may append audio, and is as large as that."""
    decoder = _DECODER
    if len(data) > MAX_EVENT_BYTES or (isinstance(data, str) and len(data.encode(errors="replace")) > MAX_EVENT_BYTES):
        if not carries_audio or len(data) > MAX_APPEND_BYTES + APPEND_OVERHEAD:
            raise _too_large()
        decoder = _APPEND
    try:
        event = decoder.decode(data)
    except msgspec.ValidationError as error:
        if decoder is _APPEND and not _is_append(data):
            raise _too_large() from None
        raise _what_is_wrong(data, error) from None
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        raise ApiError(Code.INVALID_JSON, "The event is not valid JSON.") from None
    if isinstance(event, ItemCreate):
        _check_item(event.item, "item")
    elif isinstance(event, ResponseCreate) and event.response is not None:
        for index, item in enumerate(event.response.input or ()):
            _check_item(item, f"response.input[{index}]")
    return event


def _too_large() -> ApiError:
    return ApiError(Code.TOO_LARGE, f"The event is larger than {MAX_EVENT_BYTES} bytes.")


def _is_append(data: str | bytes) -> bool:
    try:
        return bool(_HEAD.decode(data).type == InputAppend.__struct_config__.tag)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return False


def _what_is_wrong(data: str | bytes, error: msgspec.ValidationError) -> ApiError:
    try:
        kind = _HEAD.decode(data).type
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return ApiError(Code.INVALID_JSON, "An event must be a JSON object.")
    if kind is None:
        return ApiError(Code.MISSING_PARAMETER, "Missing required parameter: 'type'.", "type")
    if not isinstance(kind, str) or kind not in _TYPES:
        shown = kind if isinstance(kind, str) and len(kind) <= 100 else "…"
        known = ", ".join(f"'{name}'" for name in sorted(_TYPES))
        message = f"Invalid value: '{shown}'. Supported values are: {known}."
        return ApiError(Code.INVALID_VALUE, message, "type")
    try:
        raise_for(error)
    except ApiError as found:
        return found


def _check_item(item: Item | ItemReference, place: str) -> None:
    """What types cannot say. Raises ApiError, with a path below `place`."""
    if not isinstance(item, Message):
        return
    index = item.misplaced()
    if index is not None:
        param = f"{place}.content[{index}].type"
        raise ApiError(
            Code.INVALID_VALUE, f"Invalid value for '{param}': a message of this role cannot say that.", param
        )
    for index, part in enumerate(item.content):
        if isinstance(part, InputAudio) and isinstance(part.audio, str):
            param = f"{place}.content[{index}].audio"
            try:
                base64.b64decode(part.audio, validate=True)
            except (binascii.Error, ValueError):
                message = f"Invalid '{param}'. Expected base64-encoded audio bytes, but got an invalid value."
                raise ApiError(Code.INVALID_VALUE, message, param) from None

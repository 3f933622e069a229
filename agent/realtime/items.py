"""Items of a conversation: messages, calls of functions, and what the functions returned.

Structs are what goes over the wire. Those that clients send are checked when they are read; `status` is ours to say.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

__all__ = [
    "Content",
    "FunctionCall",
    "FunctionCallOutput",
    "Identifier",
    "InputAudio",
    "InputText",
    "Item",
    "ItemReference",
    "Message",
    "OutputAudio",
    "OutputText",
    "Status",
    "bytes_of",
    "text_of",
]

MAX_CONTENT = 64
PART_OVERHEAD = 64  # bytes that a piece of content costs besides its words

Identifier: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64)]
Status: TypeAlias = Literal["in_progress", "completed", "incomplete"]


class InputText(msgspec.Struct, tag_field="type", tag="input_text"):
    text: str


class InputAudio(msgspec.Struct, tag_field="type", tag="input_audio", kw_only=True, omit_defaults=False):
    """What the caller said; the audio itself is not sent back. `transcript` is None until it is known."""

    transcript: str | None = None
    audio: str | msgspec.UnsetType = msgspec.UNSET


class OutputText(msgspec.Struct, tag_field="type", tag="output_text"):
    text: str


class OutputAudio(msgspec.Struct, tag_field="type", tag="output_audio", kw_only=True):
    transcript: str | None = None


Content: TypeAlias = InputText | InputAudio | OutputText | OutputAudio

# What each role may say.
_SAID_BY: dict[str, tuple[type, ...]] = {
    "user": (InputText, InputAudio),
    "system": (InputText,),
    "assistant": (OutputText, OutputAudio),
}


class Message(msgspec.Struct, tag_field="type", tag="message", kw_only=True):
    role: Literal["user", "system", "assistant"]
    content: Annotated[list[Content], Meta(max_length=MAX_CONTENT)]
    id: Identifier | None = None
    object: Literal["realtime.item"] = "realtime.item"
    status: Status = "completed"

    def misplaced(self) -> int | None:
        """The index of the first piece of content that this role cannot say."""
        allowed = _SAID_BY[self.role]
        return next((index for index, part in enumerate(self.content) if not isinstance(part, allowed)), None)


class FunctionCall(msgspec.Struct, tag_field="type", tag="function_call", kw_only=True):
    name: Annotated[str, Meta(min_length=1, max_length=256)]
    arguments: str
    call_id: Identifier
    id: Identifier | None = None
    object: Literal["realtime.item"] = "realtime.item"
    status: Status = "completed"


class FunctionCallOutput(msgspec.Struct, tag_field="type", tag="function_call_output", kw_only=True):
    call_id: Identifier
    output: str
    id: Identifier | None = None
    object: Literal["realtime.item"] = "realtime.item"
    status: Status = "completed"


class ItemReference(msgspec.Struct, tag_field="type", tag="item_reference", frozen=True):
    """In place of an item, one that the conversation has."""

    id: Identifier


Item: TypeAlias = Message | FunctionCall | FunctionCallOutput


def text_of(item: Item) -> str:
    """What is known of it in words."""
    if isinstance(item, FunctionCall):
        return item.arguments
    if isinstance(item, FunctionCallOutput):
        return item.output
    words = (part.text if isinstance(part, (InputText, OutputText)) else part.transcript or "" for part in item.content)
    return " ".join(word for word in words if word)


def bytes_of(item: Item) -> int:
    """What it costs: its words, names and ids in UTF-8, and so much for each piece of content."""
    texts = [item.id, text_of(item)]
    if isinstance(item, Message):
        return PART_OVERHEAD * len(item.content) + _utf8(texts)
    return _utf8([*texts, item.call_id, item.name if isinstance(item, FunctionCall) else None])


def _utf8(texts: list[str | None]) -> int:
    return sum(len(text) if text.isascii() else len(text.encode("utf-8", "replace")) for text in texts if text)

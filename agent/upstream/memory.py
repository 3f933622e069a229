"""The conversation in words, as far as the service tells it: what a further session is told when one is lost.

Sound is not kept. A message of the caller's is its transcript; one of the model's that was cut is as much of its transcript
as was heard, by the share of its sound. What has no words is left out.

Bound: 256 items, 128 Ki letters; the oldest go first, and are counted. An item of more than 64 KiB is not remembered, nor
what is more than 64 parts of one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import msgspec

from agent.upstream.events import ServiceEvent, number, word

__all__ = ["Memory"]

# Implementation constants
MAX_ITEMS = 256
MAX_LETTERS = 128 * 1024
MAX_ITEM_BYTES = 64 * 1024
MAX_PARTS = 64
ITEM_OVERHEAD = 128
PART_OVERHEAD = 64


class _Part(msgspec.Struct):
    type: str | None = None
    text: str | None = None
    transcript: str | None = None


class _Named(msgspec.Struct):
    id: str


class _Item(msgspec.Struct):
    """An item as the service tells it; fields that no kind of item needs for its words are passed over."""

    id: str
    type: str
    role: str | None = None
    content: list[_Part] | None = None
    name: str | None = None
    call_id: str | None = None
    arguments: str | None = None
    output: str | None = None


_NAMED = msgspec.json.Decoder(_Named)
_ITEM = msgspec.json.Decoder(_Item)
_PART_TYPES = {"user": "input_text", "system": "input_text", "assistant": "output_text"}


@dataclass(slots=True)
class _Remembered:
    item: _Item
    transcripts: dict[int, str] = field(default_factory=dict)
    """What was understood of the parts that are sound."""
    share: float = 1.0
    """Of its sound that was heard."""

    @property
    def letters(self) -> int:
        item = self.item
        parts = sum(PART_OVERHEAD + len(part.text or "") + len(part.transcript or "") for part in item.content or ())
        fields = sum(len(text or "") for text in (item.id, item.name, item.call_id, item.arguments, item.output))
        return ITEM_OVERHEAD + parts + fields + sum(map(len, self.transcripts.values()))


class Memory:
    """Told of each event of the service that concerns items; what is wrong in one is passed over."""

    def __init__(self, drops: Counter[str]) -> None:
        """`drops` counts what is forgotten."""
        self._drops = drops
        self._items: dict[str, _Remembered] = {}
        self._order: list[str] = []
        self._letters = 0

    def note(self, event: ServiceEvent, *, may_be_new: bool = True) -> None:
        """An item was added, or is done: what it is now. `may_be_new`: it is in the conversation, not only in a response."""
        try:
            if len(event.item) > MAX_ITEM_BYTES:  # what was known of it is true no more
                self.delete(_NAMED.decode(event.item).id)
                self._drops["item_forgotten"] += 1
                return
            item = _ITEM.decode(event.item)
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            return
        if item.content is not None:
            del item.content[MAX_PARTS:]
        if word(item.id) is None:
            return
        known = self._items.get(item.id)
        if known is None:
            if not may_be_new:
                return
            self._place(item.id, event.previous_item_id)
            known = self._items[item.id] = _Remembered(item)
        else:
            self._letters -= known.letters
            known.item = item
        self._letters += known.letters
        self._forget_oldest()

    def note_transcript(self, event: ServiceEvent) -> None:
        """What the caller said in sound."""
        known, index = self._items.get(word(event.item_id) or ""), number(event.content_index)
        if (
            known is None
            or index is None
            or not isinstance(event.transcript, str)
            or index >= len(known.item.content or ())
        ):
            return
        self._letters -= known.letters
        known.transcripts[index] = event.transcript
        self._letters += known.letters
        self._forget_oldest()

    def note_heard(self, item_id: str, share: float) -> None:
        """Only so much of its sound was heard, 0 to 1."""
        if item_id in self._items:
            self._items[item_id].share = share

    def delete(self, item_id: str) -> None:
        known = self._items.pop(item_id, None)
        if known is not None:
            self._order.remove(item_id)
            self._letters -= known.letters

    def items(self) -> list[dict[str, Any]]:
        """As `conversation.item.create` takes them, in order."""
        told = (_told(self._items[item_id]) for item_id in self._order)
        return [item for item in told if item is not None]

    def _place(self, item_id: str, previous: object) -> None:
        if previous == "root":
            self._order.insert(0, item_id)
        elif isinstance(previous, str) and previous in self._items:
            self._order.insert(self._order.index(previous) + 1, item_id)
        else:
            self._order.append(item_id)

    def _forget_oldest(self) -> None:
        while len(self._order) > MAX_ITEMS or self._letters > MAX_LETTERS:
            self.delete(self._order[0])
            self._drops["item_forgotten"] += 1


def _told(known: _Remembered) -> dict[str, Any] | None:
    item = known.item
    match item.type:
        case "message" if item.role in _PART_TYPES:
            text = _words(known)
            content = [{"type": _PART_TYPES[item.role], "text": text}]
            return {"id": item.id, "type": "message", "role": item.role, "content": content} if text else None
        case "function_call" if item.call_id and item.name:
            arguments = item.arguments or "{}"
            return {
                "id": item.id,
                "type": item.type,
                "call_id": item.call_id,
                "name": item.name,
                "arguments": arguments,
            }
        case "function_call_output" if item.call_id:
            return {"id": item.id, "type": item.type, "call_id": item.call_id, "output": item.output or ""}
    return None


def _words(known: _Remembered) -> str:
    texts = []
    for index, part in enumerate(known.item.content or ()):
        if part.text:
            texts.append(part.text)
        elif transcript := known.transcripts.get(index) or part.transcript:
            texts.append(transcript)
    text = "\n".join(texts)
    if known.share >= 1.0:
        return text
    cut = text[: int(len(text) * max(0.0, known.share))]
    return cut[: cut.rfind(" ") + 1].rstrip() if len(cut) < len(text) and not text[len(cut)].isspace() else cut

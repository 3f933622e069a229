"""The items of a conversation, in their order.

1. An item stands behind the one that its sender named, else at the end; its id is the sender's, or ours.
2. At most MAX_ITEMS and MAX_BYTES are kept: the oldest are forgotten then, as a model's context would forget them.
3. Of an assistant's spoken message it is known how long its sound is, and how much of the words had been said at which
   moment: cut at a moment (`truncate`), it keeps what was heard by then.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from agent.realtime.items import FunctionCall, Item, ItemReference, Message, OutputAudio, bytes_of
from protocol.realtime.errors import ApiError, Code

__all__ = ["MAX_BYTES", "MAX_ITEMS", "ROOT", "Conversation"]

ROOT = "root"  # as `previous_item_id`: at the beginning

# Implementation constants
MAX_ITEMS = 1000
MAX_BYTES = 4 * 1024 * 1024
ITEM_OVERHEAD = 256  # bytes that an item costs besides its words


@dataclass(slots=True)
class _Speech:
    """The sound of a spoken message."""

    milliseconds: float = 0.0
    marks: list[tuple[float, int]] = field(default_factory=list)
    """(when, in milliseconds of its sound; how many letters had been said by then)"""


class Conversation:
    def __init__(self) -> None:
        self._items: dict[str, Item] = {}
        self._order: list[str] = []
        self._speech: dict[str, _Speech] = {}
        self._costs: dict[str, int] = {}
        self._cost = 0
        """Their sum."""
        self.counters: Counter[str] = Counter()
        """`forgotten`: items dropped because there were too many."""

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Item]:
        return iter([self._items[name] for name in self._order])

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._items

    def get(self, item_id: str, param: str = "item_id") -> Item:
        """Raises ApiError."""
        item = self._items.get(item_id)
        if item is None:
            raise ApiError(Code.ITEM_NOT_FOUND, f"Item with id '{item_id}' does not exist.", param)
        return item

    def select(self, wanted: Iterable[Item | ItemReference] | None) -> tuple[Item, ...]:
        """What a response is to know: these, or all. Raises ApiError for one that is not there."""
        if wanted is None:
            return tuple(self)
        return tuple(
            self.get(item.id, f"response.input[{index}].id") if isinstance(item, ItemReference) else item
            for index, item in enumerate(wanted)
        )

    def has_call(self, call_id: str) -> bool:
        """Whether a function was called by that name of the call."""
        return any(isinstance(item, FunctionCall) and item.call_id == call_id for item in self._items.values())

    def previous(self, item_id: str) -> str | None:
        """The id of the item before it; None for the first."""
        place = self._order.index(item_id)
        return self._order[place - 1] if place else None

    @property
    def last(self) -> str | None:
        return self._order[-1] if self._order else None

    def insert(self, item: Item, after: str | None = None) -> str | None:
        """The id of the item it now stands behind. Its own id is set. Raises ApiError."""
        assert item.id is not None
        if item.id in self._items:
            raise ApiError(Code.ITEM_EXISTS, f"An item with id '{item.id}' exists already.", "item.id")
        if after is None:
            place = len(self._order)
        elif after == ROOT:
            place = 0
        else:
            self.get(after, "previous_item_id")
            place = self._order.index(after) + 1
        self._order.insert(place, item.id)
        self._items[item.id] = item
        self._weigh(item.id, ITEM_OVERHEAD + bytes_of(item))
        self._forget_surplus(item.id)
        return self.previous(item.id)

    def grown(self, item_id: str, words: str) -> None:
        """These were added to its words."""
        if item_id in self._items:
            self._weigh(item_id, self._costs[item_id] + len(words.encode("utf-8", "replace")))
            self._forget_surplus(item_id)

    def delete(self, item_id: str) -> None:
        """Raises ApiError."""
        self.get(item_id)
        self._cost -= self._costs.pop(item_id)
        del self._items[item_id]
        self._speech.pop(item_id, None)
        self._order.remove(item_id)

    # Speech

    def spoke(self, item_id: str, milliseconds: float, letters: int) -> None:
        """So much sound was added to a message; at its end, so many letters in all had been said."""
        if item_id not in self._items:
            return
        speech = self._speech.setdefault(item_id, _Speech())
        speech.milliseconds += milliseconds
        if speech.marks and speech.marks[-1][1] == letters:
            speech.marks[-1] = speech.milliseconds, letters
        else:
            speech.marks.append((speech.milliseconds, letters))

    def spoken_ms(self, item_id: str) -> float:
        speech = self._speech.get(item_id)
        return speech.milliseconds if speech is not None else 0.0

    def truncate(self, item_id: str, content_index: int, audio_end_ms: int) -> None:
        """Forget what was said after that moment of a spoken message. Raises ApiError."""
        item = self.get(item_id)
        if not isinstance(item, Message) or item.role != "assistant":
            raise ApiError(Code.INVALID_VALUE, "Only messages of the assistant can be truncated.", "item_id")
        part = item.content[content_index] if content_index < len(item.content) else None
        if not isinstance(part, OutputAudio):
            raise ApiError(Code.INVALID_VALUE, "There is no audio content at that index.", "content_index")
        speech = self._speech.get(item_id, _Speech())
        if audio_end_ms > round(speech.milliseconds):
            message = f"Audio content of {round(speech.milliseconds)} ms is already shorter than {audio_end_ms} ms."
            raise ApiError(Code.INVALID_VALUE, message, "audio_end_ms")
        said = part.transcript or ""
        kept = said[: _letters_at(speech, audio_end_ms, len(said))].rstrip()
        part.transcript = kept
        self._weigh(item_id, ITEM_OVERHEAD + bytes_of(item))
        speech.milliseconds = float(audio_end_ms)
        speech.marks = [mark for mark in speech.marks if mark[0] <= audio_end_ms]

    def _weigh(self, item_id: str, cost: int) -> None:
        self._cost += cost - self._costs.get(item_id, 0)
        self._costs[item_id] = cost

    def _forget_surplus(self, spare: str) -> None:
        while len(self._order) > MAX_ITEMS or (self._cost > MAX_BYTES and len(self._order) > 1):
            oldest = self._order[0] if self._order[0] != spare else self._order[1]
            self.delete(oldest)
            self.counters["forgotten"] += 1


def _letters_at(speech: _Speech, moment: float, letters: int) -> int:
    """How many letters had been said by then: between two marks, in proportion."""
    marks = speech.marks
    place = bisect.bisect_right(marks, moment, key=lambda mark: mark[0])
    began, before = marks[place - 1] if place else (0.0, 0)
    if place == len(marks):
        return min(before, letters) if marks else 0
    ended, after = marks[place]
    return min(letters, before + int((after - before) * (moment - began) / (ended - began)))

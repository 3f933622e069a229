"""The service's sound on its way to the caller's ear: what waits, and what of it was really heard.

1. Sound comes faster than it is heard; it waits as PCM, in the order in which it came (`Backlog`).
2. What is sent gets its place on the caller's timeline, in milliseconds as `call.played` counts them (`Timeline`).
3. Reports say up to where the timeline was played; a flush says it exactly. So it is known, for each part of each
   item, how much of it was heard.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, NamedTuple

__all__ = ["BYTES_A_MS", "PIECE_BYTES", "Backlog", "Piece", "Sound", "Timeline"]

# Specification constants
RATE: Final = 24_000  # of the API's PCM
BYTES_A_MS: Final = RATE * 2 / 1000

# Implementation constants
PIECE_BYTES: Final = 4800  # 100 ms: what is resampled and encoded in one go
PIECE_OVERHEAD: Final = 160  # bytes that a piece costs besides its sound


@dataclass(slots=True, eq=False)
class Sound:
    """Of one content part of an item."""

    response_id: str
    item_id: str
    content_index: int
    session: int
    """Which session of the service knows the item: the first, the second …"""
    received_bytes: int = 0
    heard_ms: float = 0.0
    is_whole: bool = False
    """All of it is there."""

    @property
    def received_ms(self) -> float:
        return self.received_bytes / BYTES_A_MS


class Piece(NamedTuple):
    sound: Sound
    pcm: bytes
    """Empty: the sound is over."""


class Backlog:
    """What waits to be played. Bound: `max_bytes`, told by `is_full`; whoever puts then waits (in the end, the service)."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._pieces: deque[Piece] = deque()
        self._bytes = 0

    def __bool__(self) -> bool:
        return bool(self._pieces)

    @property
    def is_full(self) -> bool:
        return self._bytes > self._max_bytes

    def put(self, sound: Sound, pcm: bytes) -> int:
        """How many pieces that makes."""
        before = len(self._pieces)
        for place in range(0, max(1, len(pcm)), PIECE_BYTES):
            piece = Piece(sound, pcm[place : place + PIECE_BYTES])
            self._pieces.append(piece)
            self._bytes += len(piece.pcm) + PIECE_OVERHEAD
        return len(self._pieces) - before

    def take(self) -> Piece | None:
        if not self._pieces:
            return None
        piece = self._pieces.popleft()
        self._bytes -= len(piece.pcm) + PIECE_OVERHEAD
        return piece

    def clear(self) -> None:
        self._pieces.clear()
        self._bytes = 0


@dataclass(slots=True)
class _Stretch:
    sound: Sound
    begin: float
    end: float


class Timeline:
    """What was sent and is not known to be played: at most the few seconds that a call lets wait."""

    def __init__(self) -> None:
        self._stretches: deque[_Stretch] = deque()

    def place(self, sound: Sound, at: float, milliseconds: float) -> None:
        last = self._stretches[-1] if self._stretches else None
        if last is not None and last.sound is sound and abs(last.end - at) < 1:
            last.end += milliseconds
        else:
            self._stretches.append(_Stretch(sound, at, at + milliseconds))

    def play_to(self, position: float) -> None:
        """All up to there has been heard."""
        stretches = self._stretches
        while stretches:
            first = stretches[0]
            if position < first.end - 1:  # positions count whole samples
                if position > first.begin:
                    first.sound.heard_ms += position - first.begin
                    first.begin = position
                return
            first.sound.heard_ms += first.end - first.begin
            stretches.popleft()

    def cut(self, position: float) -> None:
        """All up to there has been heard, and nothing of the rest will be."""
        self.play_to(position)
        self._stretches.clear()

    def holds(self, response_id: str) -> bool:
        """Is sound of it still to be played?"""
        return any(stretch.sound.response_id == response_id for stretch in self._stretches)

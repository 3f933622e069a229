"""When somebody begins and ends a sentence: webrtcvad's verdict on each 20 ms, made steady."""

from __future__ import annotations

from collections import deque
from enum import Enum

import webrtcvad

__all__ = ["Turn", "VoiceActivity"]

# Implementation constants
CHUNK_MS = 20
# At first webrtcvad takes any noise for speech, four chunks of it: until it has heard that many, more is asked for.
LEARNING_CHUNKS = 10
LEARNING_START = 5


class Turn(Enum):
    STARTED = "started"
    STOPPED = "stopped"


class VoiceActivity:
    """Feed PCM (16-bit mono, 8, 16, 32 or 48 kHz), hear of turns.

    A turn starts when `start_ms` of so long and 60 ms more are speech, and stops when, for `stop_ms`, next to nothing is.
    """

    def __init__(
        self, rate: int, *, start_ms: int = 60, stop_ms: int = 500, mode: int = 2, speaking: bool = False
    ) -> None:
        """`speaking`: a turn has begun already."""
        self._rate = rate
        self._vad = webrtcvad.Vad(mode)
        self._chunk_bytes = rate * CHUNK_MS // 1000 * 2
        self._rest = b""
        self._start = max(1, start_ms // CHUNK_MS)
        self._onset: deque[bool] = deque(maxlen=self._start + 3)
        self._to_learn = LEARNING_CHUNKS
        self._pause = max(1, stop_ms // CHUNK_MS)
        self._tail: deque[bool] = deque(maxlen=self._pause)
        self._since_voiced = 0
        self.speaking = speaking

    @property
    def onset_ms(self) -> float:
        """In which it looks for the beginning of speech."""
        return float((self._start + 3) * CHUNK_MS)

    @property
    def silent_ms(self) -> int:
        """How long ago, in audio, the last speech was heard."""
        return self._since_voiced * CHUNK_MS

    def feed(self, pcm: bytes) -> list[Turn]:
        """The turns that this piece of audio, of any length, brings to light."""
        turns: list[Turn] = []
        data = self._rest + pcm
        size = self._chunk_bytes
        whole = len(data) - len(data) % size
        for position in range(0, whole, size):
            turn = self._judge(self._vad.is_speech(data[position : position + size], self._rate))
            if turn is not None:
                turns.append(turn)
        self._rest = data[whole:]
        return turns

    def silence(self) -> list[Turn]:
        """No audio came for long: whoever spoke does so no more."""
        self._rest = b""
        self._onset.clear()
        if not self.speaking:
            return []
        self.speaking = False
        return [Turn.STOPPED]

    def _judge(self, voiced: bool) -> Turn | None:
        self._since_voiced = 0 if voiced else self._since_voiced + 1
        if not self.speaking:
            self._onset.append(voiced)
            wanted = self._start
            if self._to_learn:
                self._to_learn -= 1
                wanted = max(wanted, LEARNING_START)
            if sum(self._onset) < wanted:
                return None
            self.speaking = True
            self._onset.clear()
            self._tail.clear()
            return Turn.STARTED
        self._tail.append(voiced)
        # A click in the pause does not prolong the sentence.
        if len(self._tail) < self._pause or sum(self._tail) > self._pause // 10:
            return None
        self.speaking = False
        return Turn.STOPPED

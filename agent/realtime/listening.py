"""The caller's audio on its way into a session: decoded, kept for a while, and searched for turns.

Moments are milliseconds of audio since the call began. At most KEPT_SECONDS are kept: of a longer turn, its end.
"""

from __future__ import annotations

from typing import TypeAlias

from agent.events import Frame
from agent.realtime.line import FrameDecoder
from agent.realtime.pauses import SHORTEST_PAUSE_MS
from agent.realtime.settings import SemanticVad, ServerVad, TurnDetection
from agent.voice import CHUNK_MS, Turn, VoiceActivity

__all__ = ["Listening", "TurnAt"]

TurnAt: TypeAlias = tuple[Turn, float]
"""What became of a turn, and when: where its speech began, or where the silence that ended it was long enough."""

# Implementation constants
KEPT_SECONDS = 60
ONSET_MS = 120  # in which VoiceActivity looks for the beginning of speech
MAX_SEARCHED_MS = 10_000.0  # of what was kept, by a detector that is made anew


class Listening:
    def __init__(self, decoder: FrameDecoder) -> None:
        self.rate = decoder.rate
        self.heard_ms = 0.0
        self._decoder = decoder
        self._bytes_of_ms = decoder.rate * 2 / 1000
        self._kept = bytearray()
        self._voice: VoiceActivity | None = None

    @property
    def kept_from(self) -> float:
        """What came before that moment is forgotten."""
        return self.heard_ms - len(self._kept) / self._bytes_of_ms

    def detect(self, how: TurnDetection | None, since_ms: float, *, in_turn: bool = False) -> list[TurnAt]:
        """From now on this way (None: not at all), and in what has come since that moment: the turns in there. `in_turn`: a
        turn has begun, and goes on."""
        match how:
            case ServerVad():
                mode = min(3, int(how.threshold * 4))  # webrtcvad's four degrees of strictness
                self._voice = VoiceActivity(self.rate, stop_ms=how.silence_duration_ms, mode=mode, speaking=in_turn)
            case SemanticVad():
                self._voice = VoiceActivity(self.rate, stop_ms=SHORTEST_PAUSE_MS, speaking=in_turn)
            case _:
                self._voice = None
        if self._voice is None or in_turn:
            return []
        turns: list[TurnAt] = []
        since = max(since_ms, self.kept_from, self.heard_ms - MAX_SEARCHED_MS)
        kept = self.audio(since, self.heard_ms)
        step = int(CHUNK_MS * self._bytes_of_ms)
        for place in range(0, len(kept), step):
            piece = kept[place : place + step]
            turns += self._search(self._voice, piece, since + (place + len(piece)) / self._bytes_of_ms)
        return turns

    def hear(self, frame: Frame) -> tuple[float, list[TurnAt]]:
        """(milliseconds of audio that this frame brought, what became of turns)"""
        pcm = self._decoder.decode_frame(frame)
        milliseconds = len(pcm) / self._bytes_of_ms
        self.heard_ms += milliseconds
        self._kept += pcm
        surplus = len(self._kept) - KEPT_SECONDS * self.rate * 2
        if surplus > 0:
            del self._kept[:surplus]
        return milliseconds, self._search(self._voice, pcm, self.heard_ms) if self._voice is not None and pcm else []

    def silence(self) -> list[TurnAt]:
        """No audio comes (DTX, or a caller who is muted): whoever spoke does so no more."""
        return [(turn, self.heard_ms) for turn in self._voice.silence()] if self._voice is not None else []

    def audio(self, start_ms: float, end_ms: float) -> bytes:
        """What is still kept between these moments."""
        first = self.kept_from
        start, end = (2 * round(max(0.0, moment - first) * self._bytes_of_ms / 2) for moment in (start_ms, end_ms))
        return bytes(self._kept[start:end])

    @staticmethod
    def _search(voice: VoiceActivity, pcm: bytes, end_ms: float) -> list[TurnAt]:
        """`pcm` ends at that moment."""
        return [(turn, max(0.0, end_ms - ONSET_MS) if turn is Turn.STARTED else end_ms) for turn in voice.feed(pcm)]

"""The caller's audio on its way into a session: decoded, kept for a while, and searched for turns.

Moments are milliseconds of audio since the call began. At most KEPT_SECONDS are kept: of a longer turn, its end.
"""

from __future__ import annotations

from typing import TypeAlias

from agent.events import Frame
from agent.realtime.line import FrameDecoder
from agent.realtime.parts import Detector, Detectors
from agent.realtime.pauses import SHORTEST_PAUSE_MS
from agent.voice import CHUNK_MS, Turn
from protocol.realtime.settings import KEPT_SECONDS, SemanticVad, ServerVad, TurnDetection

__all__ = ["Listening", "TurnAt"]

TurnAt: TypeAlias = tuple[Turn, float]
"""What became of a turn, and when: where its speech began, or where the silence that ended it was long enough."""

# Implementation constants
MAX_SEARCHED_MS = 10_000.0  # of what was kept, by a detector that is made anew


class Listening:
    def __init__(self, decoder: FrameDecoder, detectors: Detectors) -> None:
        self.rate = decoder.rate
        self.heard_ms = 0.0
        self._decoder = decoder
        self._detectors = detectors
        self._bytes_of_ms = decoder.rate * 2 / 1000
        self._kept = bytearray()
        self._detector: Detector | None = None

    @property
    def kept_from(self) -> float:
        """What came before that moment is forgotten."""
        return self.heard_ms - len(self._kept) / self._bytes_of_ms

    def detect(self, how: TurnDetection | None, since_ms: float, *, in_turn: bool = False) -> list[TurnAt]:
        """From now on this way (None: not at all), and in what has come since that moment: the turns in there. `in_turn`: a
        turn has begun, and goes on."""
        match how:
            case ServerVad():
                self._detector = self._start(how.threshold, how.silence_duration_ms, speaking=in_turn)
            case SemanticVad():
                self._detector = self._start(ServerVad().threshold, SHORTEST_PAUSE_MS, speaking=in_turn)
            case _:
                self._detector = None
        if self._detector is None or in_turn:
            return []
        turns: list[TurnAt] = []
        since = max(since_ms, self.kept_from, self.heard_ms - MAX_SEARCHED_MS)
        kept = self.audio(since, self.heard_ms)
        step = int(CHUNK_MS * self._bytes_of_ms)
        for place in range(0, len(kept), step):
            piece = kept[place : place + step]
            turns += self._search(self._detector, piece, since + (place + len(piece)) / self._bytes_of_ms)
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
        detector = self._detector
        return milliseconds, self._search(detector, pcm, self.heard_ms) if detector is not None and pcm else []

    def silence(self) -> list[TurnAt]:
        """No audio comes (DTX, or a caller who is muted): whoever spoke does so no more."""
        return [(turn, self.heard_ms) for turn in self._detector.silence()] if self._detector is not None else []

    def audio(self, start_ms: float, end_ms: float) -> bytes:
        """What is still kept between these moments."""
        first = self.kept_from
        start, end = (2 * round(max(0.0, moment - first) * self._bytes_of_ms / 2) for moment in (start_ms, end_ms))
        return bytes(self._kept[start:end])

    def _start(self, threshold: float, pause_ms: int, *, speaking: bool) -> Detector:
        return self._detectors.start(self.rate, threshold=threshold, pause_ms=pause_ms, speaking=speaking)

    @staticmethod
    def _search(detector: Detector, pcm: bytes, end_ms: float) -> list[TurnAt]:
        """`pcm` ends at that moment."""
        onset = max(0.0, end_ms - detector.onset_ms)
        return [(turn, onset if turn is Turn.STARTED else end_ms) for turn in detector.feed(pcm)]

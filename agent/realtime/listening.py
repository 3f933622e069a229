"""The caller's audio on its way into a session: decoded, kept for a while, and searched for turns.

Moments are milliseconds of audio since the call began. At most KEPT_SECONDS are kept: of a longer turn, its end.
"""

from __future__ import annotations

from agent.codecs import Decoder
from agent.events import Frame
from agent.realtime.settings import SemanticVad, ServerVad, TurnDetection
from agent.voice import Turn, VoiceActivity

__all__ = ["Listening"]

# Implementation constants
KEPT_SECONDS = 60
ONSET_MS = 120  # in which VoiceActivity looks for the beginning of speech
PAUSE_MS = {"high": 400, "auto": 700, "medium": 700, "low": 1200}
"""How long a pause may be by the eagerness of `semantic_vad`, as long as nobody tells what was said."""


class Listening:
    def __init__(self, decoder: Decoder) -> None:
        self.rate = decoder.rate
        self.heard_ms = 0.0
        self._decoder = decoder
        self._bytes_of_ms = decoder.rate * 2 / 1000
        self._kept = bytearray()
        self._voice: VoiceActivity | None = None

    def detect(self, how: TurnDetection | None) -> None:
        """From now on this way; None: not at all."""
        match how:
            case ServerVad():
                mode = min(3, int(how.threshold * 4))  # webrtcvad's four degrees of strictness
                self._voice = VoiceActivity(self.rate, stop_ms=how.silence_duration_ms, mode=mode)
            case SemanticVad():
                self._voice = VoiceActivity(self.rate, stop_ms=PAUSE_MS[how.eagerness])
            case _:
                self._voice = None

    def hear(self, frame: Frame) -> tuple[float, list[Turn]]:
        """(milliseconds of audio that this frame brought, what became of turns)"""
        pcm = self._decoder.decode_frame(frame)
        milliseconds = len(pcm) / self._bytes_of_ms
        self.heard_ms += milliseconds
        self._kept += pcm
        surplus = len(self._kept) - KEPT_SECONDS * self.rate * 2
        if surplus > 0:
            del self._kept[:surplus]
        return milliseconds, self._voice.feed(pcm) if self._voice is not None and pcm else []

    def silence(self) -> list[Turn]:
        """No audio comes (DTX, or a caller who is muted): whoever spoke does so no more."""
        return self._voice.silence() if self._voice is not None else []

    def began_at(self) -> float:
        """When the speech began that was just found to have begun."""
        return max(0.0, self.heard_ms - ONSET_MS)

    def audio(self, start_ms: float, end_ms: float) -> bytes:
        """What is still kept between these moments."""
        first = self.heard_ms - len(self._kept) / self._bytes_of_ms
        start, end = (2 * round(max(0.0, moment - first) * self._bytes_of_ms / 2) for moment in (start_ms, end_ms))
        return bytes(self._kept[start:end])

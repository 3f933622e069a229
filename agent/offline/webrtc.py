"""A detector of turns: webrtcvad, made steady (agent/voice.py)."""

from __future__ import annotations

from agent.voice import VoiceActivity

__all__ = ["WebRtcVad"]

# Specification constants
DEGREES = 4  # of strictness that webrtcvad knows


class WebRtcVad:
    """`parts.Detectors`."""

    def start(self, rate: int, *, threshold: float, pause_ms: int, speaking: bool) -> VoiceActivity:
        mode = min(DEGREES - 1, int(threshold * DEGREES))
        return VoiceActivity(rate, stop_ms=pause_ms, mode=mode, speaking=speaking)

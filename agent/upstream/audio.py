"""Between a call's frames and PCM: the caller's, without holes; the service's, in frames."""

from __future__ import annotations

import math

from agent.codecs import Decoder, Encoder
from agent.codecs.resampling import Resampler
from agent.events import Frame
from agent.upstream.sound import RATE, Sound

__all__ = ["FRAME_MS", "Ear", "Mouth"]

# Implementation constants
FRAME_MS = 20.0
NO_AUDIO_SECONDS = 0.6
FILL_SECONDS = 0.2  # how often silence is filled in
MAX_SILENCE_SECONDS = 40.0  # longer than any pause that a service waits for


class Ear:
    """The caller's frames as PCM at `rate`. A client that sends nothing while nobody speaks (DTX, a muted microphone) would
    leave the service's turn detection waiting for the end of a turn; so what did not come is silence, for a while."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self.rate = decoder.rate
        self.due = math.inf
        """When `silence` is to be called, if no frame comes before."""
        self._silent_since = math.inf
        self._filled_to = math.inf

    def hear(self, frame: Frame, now: float) -> bytes:
        if self._filled_to > self._silent_since and frame.gap:
            frame = frame._replace(gap=False)  # that hole is filled
        self._silent_since = self._filled_to = now
        self.due = now + NO_AUDIO_SECONDS
        return self._decoder.decode_frame(frame)

    def silence(self, now: float) -> bytes:
        """What the service hears instead, up to now."""
        milliseconds = int((now - self._filled_to) * 1000)
        self._filled_to += milliseconds / 1000
        self.due = now + FILL_SECONDS if now < self._silent_since + MAX_SILENCE_SECONDS else math.inf
        return bytes(self.rate * milliseconds // 1000 * 2)


class Mouth:
    """The service's PCM as frames of the call. Each sound begins in a frame of its own, and its last one is filled up."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._size = encoder.frame_samples * 2
        self._sound: Sound | None = None
        self._resampler = Resampler(RATE, encoder.rate)
        self._rest = b""

    def speak(self, sound: Sound, pcm: bytes) -> list[bytes]:
        if sound is not self._sound:
            self._sound = sound
            self._resampler = Resampler(RATE, self._encoder.rate)
            self._rest = b""
        return self._frames(self._resampler.feed(pcm))

    def finish(self, sound: Sound) -> list[bytes]:
        """What is left of it."""
        if sound is not self._sound:
            return []
        self._sound = None
        frames = self._frames(self._resampler.finish())
        if self._rest:
            frames += self._frames(bytes(self._size - len(self._rest)))
        return frames

    def stop(self) -> None:
        """It was cut."""
        self._sound = None

    def _frames(self, pcm: bytes) -> list[bytes]:
        data = self._rest + pcm
        whole = len(data) - len(data) % self._size
        self._rest = data[whole:]
        return [self._encoder.encode(data[place : place + self._size]) for place in range(0, whole, self._size)]

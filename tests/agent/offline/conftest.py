"""A caller with a voice: what somebody says comes from espeak-ng, with some noise, as from a room."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event

import numpy as np
import pytest
import soxr

from agent.offline.espeak import find_espeak

Say = Callable[..., bytes]


@pytest.fixture(scope="session")
def spoken() -> Say:
    """`spoken("hello", 16000)`: PCM of that rate, with `before` and `after` milliseconds of a quiet room."""

    def spoken(text: str, rate: int = 16_000, *, before: int = 300, after: int = 500, voice: str = "en-us") -> bytes:
        library = find_espeak()
        pcm = np.frombuffer(library.synthesize(text, voice, 160, Event()), np.int16)
        speech = soxr.resample(pcm, library.rate, rate) * 0.6
        silence = [np.zeros(rate * milliseconds // 1000) for milliseconds in (before, after)]
        sound = np.concatenate([silence[0], speech, silence[1]])
        return (sound + np.random.default_rng(1).normal(0, 20, len(sound))).astype(np.int16).tobytes()

    return spoken

"""Sounds that several rooms' tests need."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest


@pytest.fixture(scope="session")
def speech() -> Callable[[int, int], list[bytes]]:
    """`speech(rate, ms)`: 20 ms pieces of PCM that a voice detector takes for speech: four vowels a second."""

    def speech(rate: int, ms: int) -> list[bytes]:
        time = np.arange(rate * ms // 1000) / rate
        pitch = 130 * (1 + 0.15 * np.sin(2 * np.pi * 1.3 * time))
        phase = 2 * np.pi * np.cumsum(pitch) / rate
        sound = np.zeros_like(time)
        for harmonic in range(1, 20):
            at = 130 * harmonic
            formants = sum(
                gain * math.exp(-(((at - center) / width) ** 2))
                for gain, center, width in ((1.0, 600, 300), (0.7, 1400, 350), (0.4, 2600, 450))
            )
            sound += (formants + 0.03) * np.sin(harmonic * phase)
        sound *= 3500 * (0.25 + 0.75 * (0.5 - 0.5 * np.cos(2 * np.pi * 4 * time)))
        return pieces(sound, rate)

    return speech


@pytest.fixture(scope="session")
def quiet() -> Callable[[int, int], list[bytes]]:
    """`quiet(rate, ms)`: a room in which nobody speaks."""

    def quiet(rate: int, ms: int) -> list[bytes]:
        return pieces(np.random.default_rng(7).normal(0, 8, rate * ms // 1000), rate)

    return quiet


def pieces(sound: np.ndarray, rate: int) -> list[bytes]:
    samples = np.clip(sound, -32768, 32767).astype(np.int16)
    size = rate // 50
    return [samples[at : at + size].tobytes() for at in range(0, len(samples), size)]

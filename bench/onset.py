"""`just bench voice`, its third part: how soon speech is found, and how often noise is taken for it, by how much is asked for.

All sound passes through Opus first, as a caller's does. Speech: synthetic vowels at several pitches, each loud from its first
sample on, in a quiet room. Noise: minutes of each kind. Nothing here runs in real time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from agent.codecs import CodecUnavailable, open_decoder, open_encoder
from agent.voice import CHUNK_MS, Turn, VoiceActivity
from bench.figures import Section
from bench.processes import BenchFailed
from bench.progress import Progress
from protocol.codecs import OPUS

__all__ = ["OnsetOptions", "measure_onset"]

Sound: TypeAlias = npt.NDArray[np.float64]

# Implementation constants
ASKED_MS = (40, 60, 80, 100)
PITCHES = tuple(range(85, 260, 7))  # hertz
FORMANTS = ((700, 1220), (500, 1900), (300, 2300), (450, 800), (310, 870))  # hertz
VOWEL_SECONDS, LEAD_SECONDS = 0.5, 1.0
ROOM = 8.0  # of 32768, the noise of a quiet room
SEED = 3

FOUND, TAKEN = "speech is found after", "taken for speech"


@dataclass(frozen=True, slots=True)
class OnsetOptions:
    seconds: float
    """Of each kind of noise."""


def measure_onset(options: OnsetOptions, progress: Progress) -> Section:
    """Raises BenchFailed."""
    section = Section(title="onset: milliseconds of speech that are asked for before a turn begins")
    chance = np.random.default_rng(SEED)
    try:
        rate = open_encoder(OPUS).rate
        progress.say("onset: making sounds")
        vowels = [
            _through_opus(_lead(chance, rate, _vowel(rate, pitch, *FORMANTS[number % len(FORMANTS)])))
            for number, pitch in enumerate(PITCHES)
        ]
        noises = {name: _through_opus(make(chance, rate, options.seconds)) for name, make in NOISES.items()}
    except CodecUnavailable as missing:
        raise BenchFailed(str(missing)) from None
    for asked in ASKED_MS:
        progress.say(f"onset: {asked} ms")
        subject = f"{asked} ms asked for"
        for pcm, heard_rate in vowels:
            begun = _beginnings(pcm, heard_rate, asked)
            after = [at - LEAD_SECONDS * 1000 for at in begun if at >= LEAD_SECONDS * 1000]
            section.add(FOUND, subject, "ms", after[0] if after else VOWEL_SECONDS * 1000)
        for name, (pcm, heard_rate) in noises.items():
            times = len(_beginnings(pcm, heard_rate, asked))
            section.add(f"{TAKEN}: {name}", subject, "times a minute", times * 60 / options.seconds)
    return section


def _beginnings(pcm: bytes, rate: int, asked: int) -> list[float]:
    """When turns begin, in milliseconds."""
    voice = VoiceActivity(rate, start_ms=asked)
    size = rate * CHUNK_MS // 1000 * 2
    return [
        (place + size) / 2 / rate * 1000
        for place in range(0, len(pcm) - size + 1, size)
        if Turn.STARTED in voice.feed(pcm[place : place + size])
    ]


def _through_opus(sound: Sound) -> tuple[bytes, int]:
    encoder, decoder = open_encoder(OPUS), open_decoder(OPUS)
    pcm = np.clip(sound, -32768, 32767).astype(np.int16).tobytes()
    size = encoder.frame_samples * 2
    frames = range(0, len(pcm) - size + 1, size)
    return b"".join(decoder.decode(encoder.encode(pcm[place : place + size])) for place in frames), decoder.rate


def _lead(chance: np.random.Generator, rate: int, sound: Sound) -> Sound:
    quiet = round(rate * LEAD_SECONDS)
    return np.concatenate([_room(chance, quiet), sound, _room(chance, quiet)])


def _room(chance: np.random.Generator, samples: int) -> Sound:
    return chance.normal(0, ROOM, samples)


def _vowel(rate: int, pitch: float, first: float, second: float) -> Sound:
    time = np.arange(round(rate * VOWEL_SECONDS)) / rate
    phase = 2 * np.pi * np.cumsum(pitch * (1 + 0.1 * np.sin(2 * np.pi * 1.3 * time))) / rate
    sound = np.zeros_like(time)
    for harmonic in range(1, int(4000 / pitch)):
        at = pitch * harmonic
        loudness = np.exp(-(((at - first) / 250) ** 2)) + 0.6 * np.exp(-(((at - second) / 300) ** 2)) + 0.02
        sound += loudness * np.sin(harmonic * phase)
    return _at_level(sound, -24)


def _at_level(sound: Sound, decibels: float) -> Sound:
    """Of full scale, on average."""
    scaled: Sound = sound * (32768 * 10 ** (decibels / 20) / np.sqrt(np.mean(sound**2)))
    return scaled


def _coloured(chance: np.random.Generator, samples: int, slope: float) -> Sound:
    spectrum = np.fft.rfft(chance.normal(size=samples))
    number = np.arange(len(spectrum))
    number[0] = 1
    return np.fft.irfft(spectrum / number ** (slope / 2), samples)


def _noise(slope: float, decibels: float) -> Callable[[np.random.Generator, int, float], Sound]:
    def make(chance: np.random.Generator, rate: int, seconds: float) -> Sound:
        return _at_level(_coloured(chance, round(rate * seconds), slope), decibels)

    return make


def _strokes(
    every: float, milliseconds: float, hertz: tuple[float, float] | None
) -> Callable[[np.random.Generator, int, float], Sound]:
    """Short sounds that die away, at random times; a click, or with `hertz` a knock of such a pitch."""

    def make(chance: np.random.Generator, rate: int, seconds: float) -> Sound:
        sound = _room(chance, round(rate * seconds))
        length = round(rate * milliseconds / 1000)
        time = np.arange(length)
        for _ in range(round(seconds / every)):
            place = chance.integers(0, len(sound) - length)
            wave = chance.normal(size=length) if hertz is None else _ringing(time / rate, chance.uniform(*hertz))
            sound[place : place + length] += wave * np.exp(-4 * time / length) * chance.uniform(2000, 8000)
        return sound

    return make


def _ringing(time: Sound, hertz: float) -> Sound:
    ringing: Sound = np.sin(2 * np.pi * hertz * time)
    return ringing


NOISES: dict[str, Callable[[np.random.Generator, int, float], Sound]] = {
    "hiss, −45 dB": _noise(0, -45),
    "hiss, −30 dB": _noise(0, -30),
    "wind, −40 dB": _noise(1, -40),
    "a fan, −35 dB": _noise(2, -35),
    "typing, five keys a second": _strokes(0.2, 20, None),
    "knocking, twice a second": _strokes(0.5, 100, (150, 900)),
}

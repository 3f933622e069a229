"""espeak-ng, called by ctypes: a sentence in, its sound out; and the speaker `espeak`.

The wheel `espeakng-loader` brings the library and its voices. espeak-ng is GPL-3.0: it is no part of Antiphon, and loaded by
this speaker alone, when somebody asks for it.

The library has one state for the whole process, so one piece of text is spoken at a time: at most PIECE_LETTERS, some
milliseconds of work in a thread, outside the interpreter's lock. Whoever speaks a long text stands in line again for each
piece, and only when the caller's ear is ready for it.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Lock

import trio

from agent.config import AgentConfig
from agent.realtime.parts import Manner, ModelFailed, Play

__all__ = ["Espeak", "EspeakLibrary", "EspeakMissing", "find_espeak"]

# Specification constants: espeak-ng's speak_lib.h
AUDIO_OUTPUT_SYNCHRONOUS = 2
INITIALIZE_DONT_EXIT = 0x8000
POS_CHARACTER = 1
CHARS_UTF8 = 1
RATE_PARAMETER = 1
MIN_WORDS, MAX_WORDS = 80, 450  # a minute

# Implementation constants
BUFFER_MS = 60  # of sound that the library makes at a time: so soon it can be stopped
PIECE_LETTERS = 160
PLAY_MS = 100  # of sound that is handed over at a time
WORDS_A_MINUTE = 165  # at speed 1.0

# The API's voices, each as near as espeak-ng's variants come.
DEFAULT_VOICE = "en-us"
VOICES = {
    "alloy": "en-us",
    "ash": "en-us+m3",
    "ballad": "en-gb-x-rp",
    "cedar": "en-us+m1",
    "coral": "en-us+f2",
    "echo": "en-us+m2",
    "marin": "en-us+f4",
    "sage": "en-us+f5",
    "shimmer": "en-us+f3",
    "verse": "en-us+m7",
}

_BREAK = re.compile(r"(?<=[.,;:!?])\s+")
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


class EspeakMissing(Exception):
    """One sentence: why there is no speaker here."""


class EspeakLibrary:
    """One a process: see `find_espeak`."""

    def __init__(self, library: Path, data: Path) -> None:
        try:
            self._library = ctypes.CDLL(str(library))
        except OSError as error:
            raise EspeakMissing(f"espeak-ng cannot be used: {error}") from None
        self._library.espeak_Initialize.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int)
        self._library.espeak_SetVoiceByName.argtypes = (ctypes.c_char_p,)
        self._library.espeak_SetParameter.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int)
        self._library.espeak_Synth.argtypes = (
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.c_uint,
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.c_uint,
            ctypes.c_void_p,
            ctypes.c_void_p,
        )
        self.rate: int = self._library.espeak_Initialize(
            AUDIO_OUTPUT_SYNCHRONOUS, BUFFER_MS, str(data).encode(), INITIALIZE_DONT_EXIT
        )
        if self.rate <= 0:
            raise EspeakMissing(f"espeak-ng finds no voices in {data}")
        self._one_at_a_time = Lock()
        self._sound = bytearray()
        self._stop = Event()
        self._callback = _CALLBACK(self._take)
        self._library.espeak_SetSynthCallback(self._callback)
        self._voice = ""

    def synthesize(self, text: str, voice: str, words_a_minute: int, stop: Event) -> bytes:
        """16-bit mono at `rate`; what there is of it once `stop` is set. Raises EspeakMissing for a voice that is not there."""
        data = text.replace("\0", " ").encode(errors="replace") + b"\0"
        with self._one_at_a_time:
            if voice != self._voice:
                if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
                    raise EspeakMissing(f"espeak-ng has no voice {voice!r}")
                self._voice = voice
            self._library.espeak_SetParameter(RATE_PARAMETER, words_a_minute, 0)
            self._sound.clear()
            self._stop = stop
            self._library.espeak_Synth(data, len(data), 0, POS_CHARACTER, 0, CHARS_UTF8, None, None)
            return bytes(self._sound)

    def _take(self, samples: int | None, count: int, events: int | None) -> int:
        if samples is not None and count > 0:
            self._sound += ctypes.string_at(samples, 2 * count)
        return int(self._stop.is_set())


@functools.cache
def find_espeak() -> EspeakLibrary:
    """Raises EspeakMissing."""
    spec = importlib.util.find_spec("espeakng_loader")
    for place in spec.submodule_search_locations or () if spec is not None else ():
        for library in sorted(Path(place).glob("libespeak-ng.*")):
            return EspeakLibrary(library, Path(place) / "espeak-ng-data")
    raise EspeakMissing("espeak-ng is not installed")


class Espeak:
    """`Speaker`. Raises EspeakMissing when it is made."""

    def __init__(self) -> None:
        self._library = find_espeak()
        self._line = trio.CapacityLimiter(1)  # first come, first served

    @classmethod
    def of(cls, config: AgentConfig) -> Espeak:
        return cls()

    @property
    def rate(self) -> int:
        return self._library.rate

    async def speak(self, text: str, manner: Manner, play: Play) -> None:
        voice = VOICES.get(manner.voice, DEFAULT_VOICE)
        speed = max(MIN_WORDS, min(MAX_WORDS, round(WORDS_A_MINUTE * manner.speed)))
        step = self.rate * PLAY_MS // 1000 * 2
        for piece in _pieces(text):
            pcm = await self._synthesize(piece, voice, speed)
            for place in range(0, len(pcm), step):
                await play(pcm[place : place + step])

    async def _synthesize(self, text: str, voice: str, speed: int) -> bytes:
        stop = Event()
        try:
            return await trio.to_thread.run_sync(
                self._library.synthesize, text, voice, speed, stop, limiter=self._line, abandon_on_cancel=True
            )
        except EspeakMissing as error:
            raise ModelFailed(str(error)) from None
        finally:
            stop.set()  # who was cancelled does not wait for the rest


def _pieces(text: str) -> Iterator[str]:
    """Nothing to say is no piece. Cut behind punctuation if that is possible, else between words, else anywhere."""
    piece = ""
    for part in _BREAK.split(text):
        for chunk in _chunks(part):
            if piece and len(piece) + len(chunk) >= PIECE_LETTERS:
                yield piece
                piece = ""
            piece += f" {chunk}" if piece else chunk
    if piece:
        yield piece


def _chunks(text: str) -> Iterator[str]:
    rest = text.strip()
    while len(rest) > PIECE_LETTERS:
        space = rest.rfind(" ", 1, PIECE_LETTERS)
        end = space if space > 0 else PIECE_LETTERS
        yield rest[:end]
        rest = rest[end:].strip()
    if rest:
        yield rest

"""The recognizer `pocketsphinx`: hears the small language, while it is spoken, in threads of its own.

A decoder costs some 20 MB and 50 ms to make, and serves one turn at a time. They are made as they are needed, up to
MAX_DECODERS, and kept; who finds none waits for one. At most as many decode at once as there are cores, in short pieces, so
that a long turn holds up nobody's, and all of it runs outside the interpreter's lock.

Nobody waits for those who say nothing: a turn of which no audio has come for IDLE_SECONDS gives its decoder back. What comes
then is decoded by itself, and its words follow. Of a turn LONGEST_SECONDS are heard, by the clock and of audio.
"""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeVar

import trio

from agent.codecs.resampling import Resampler
from agent.config import AgentConfig
from agent.offline.language import GRAMMAR
from agent.offline.sphinx import RATE, SphinxDecoder

__all__ = ["PocketSphinx"]

_T = TypeVar("_T")

# Implementation constants
MAX_DECODERS = 64
IDLE_SECONDS = 2.0
LONGEST_SECONDS = 60.0
PIECE_BYTES = RATE // 5 * 2  # that are decoded at a time: 200 ms, some 15 ms of work


class PocketSphinx:
    """`GuessingRecognizer`. Raises SphinxMissing when it is made."""

    def __init__(self, grammar: str = GRAMMAR, *, decoders: int = MAX_DECODERS) -> None:
        self._grammar = grammar
        self._free = [SphinxDecoder(grammar)]  # the first call is not to wait for it
        self._leases = trio.CapacityLimiter(decoders)
        self._threads = trio.CapacityLimiter(os.cpu_count() or 1)

    @classmethod
    def of(cls, config: AgentConfig) -> PocketSphinx:
        return cls()

    async def transcribe(self, audio: AsyncIterator[bytes], rate: int, language: str | None) -> str:
        return await self.guess(audio, rate, language, lambda words: None)

    async def guess(
        self, audio: AsyncIterator[bytes], rate: int, language: str | None, tell: Callable[[str], None]
    ) -> str:
        if language is not None and not language.lower().startswith("en"):
            raise ValueError(f"the offline recognizer understands English only, not {language!r}")
        sound = _Sound(aiter(audio), rate)
        said = ""
        while (pcm := await sound.next()) is not None:
            async with self._leases:
                sound.begin()
                decoder = self._free.pop() if self._free else await self._work(SphinxDecoder, self._grammar)
                try:
                    said = await self._decode(decoder, sound, pcm, said, tell)
                finally:
                    self._free.append(decoder)
        return said

    async def _decode(
        self, decoder: SphinxDecoder, sound: _Sound, pcm: bytes | None, said: str, tell: Callable[[str], None]
    ) -> str:
        """All words, behind those that were `said`, until the turn is over or no audio comes."""
        await self._work(decoder.begin)
        guess = ""
        while pcm is not None:
            for piece in _pieces(pcm):
                words = await self._work(decoder.feed, piece)
                if words != guess:
                    guess = words
                    tell(f"{said} {words}".strip())
            pcm = await sound.next(IDLE_SECONDS)
        return f"{said} {await self._work(decoder.finish)}".strip()

    async def _work(self, function: Callable[..., _T], *arguments: object) -> _T:
        # Not abandoned when it is cancelled: it takes milliseconds, and the decoder is somebody else's next.
        return await trio.to_thread.run_sync(function, *arguments, limiter=self._threads)


class _Sound:
    """The audio of a turn at RATE, as far as it is listened to."""

    def __init__(self, audio: AsyncIterator[bytes], rate: int) -> None:
        self._audio = audio
        self._resampler = Resampler(rate, RATE)
        self._left = int(LONGEST_SECONDS * RATE) * 2
        self._ends_at = math.inf
        self._is_over = False

    def begin(self) -> None:
        """Somebody listens: the time that is left begins, unless it has."""
        self._ends_at = min(self._ends_at, trio.current_time() + LONGEST_SECONDS)

    async def next(self, patience: float = math.inf) -> bytes | None:
        """None when it is over, or when nothing comes for so long."""
        if self._is_over:
            return None
        with trio.move_on_at(min(self._ends_at, trio.current_time() + patience)):
            try:
                pcm = self._resampler.feed(await anext(self._audio))
            except StopAsyncIteration:
                self._is_over = True
                pcm = self._resampler.finish()
            pcm = pcm[: self._left]
            self._left -= len(pcm)
            self._is_over = self._is_over or not self._left
            return pcm
        self._is_over = trio.current_time() >= self._ends_at
        return None


def _pieces(pcm: bytes) -> Iterator[bytes]:
    for place in range(0, len(pcm), PIECE_BYTES):
        yield pcm[place : place + PIECE_BYTES]

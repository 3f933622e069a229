"""The recognizer `pocketsphinx`: hears the small language, while it is spoken, in threads of its own.

A decoder costs some 20 MB and 50 ms to make, and serves one turn at a time. They are made as they are needed, up to
MAX_DECODERS, and kept; who finds none waits for one. At most as many decode at once as there are cores, in short pieces, so
that a long turn holds up nobody's, and all of it runs outside the interpreter's lock.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeVar

import trio

from agent.codecs.resampling import Resampler
from agent.config import AgentConfig
from agent.offline.language import GRAMMAR
from agent.offline.sphinx import RATE, SphinxDecoder
from agent.realtime.parts import ModelFailed

__all__ = ["PocketSphinx"]

_T = TypeVar("_T")

# Implementation constants
MAX_DECODERS = 64
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
        """`GuessingRecognizer.guess`. Raises ModelFailed for another language than English."""
        if language is not None and not language.lower().startswith("en"):
            raise ModelFailed(f"the offline recognizer understands English only, not {language!r}")
        async with self._leases:
            decoder = self._free.pop() if self._free else await self._work(SphinxDecoder, self._grammar)
            try:
                return await self._decode(decoder, audio, rate, tell)
            finally:
                self._free.append(decoder)

    async def _decode(
        self, decoder: SphinxDecoder, audio: AsyncIterator[bytes], rate: int, tell: Callable[[str], None]
    ) -> str:
        resampler = Resampler(rate, RATE)
        await self._work(decoder.begin)
        guess = ""
        async for pcm in audio:
            for piece in _pieces(resampler.feed(pcm)):
                words = await self._work(decoder.feed, piece)
                if words != guess:
                    guess = words
                    tell(words)
        await self._work(decoder.feed, resampler.finish())
        return await self._work(decoder.finish)

    async def _work(self, function: Callable[..., _T], *arguments: object) -> _T:
        # Not abandoned when it is cancelled: it takes milliseconds, and the decoder is somebody else's next.
        return await trio.to_thread.run_sync(function, *arguments, limiter=self._threads)


def _pieces(pcm: bytes) -> Iterator[bytes]:
    for place in range(0, len(pcm), PIECE_BYTES):
        yield pcm[place : place + PIECE_BYTES]

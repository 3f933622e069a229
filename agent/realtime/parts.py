"""What a voice agent is made of, each part to be replaced: a recognizer that knows words, a model that answers."""

from __future__ import annotations

from typing import Protocol

import trio

from agent.realtime.response import Plan
from agent.realtime.server_events import Usage

__all__ = ["Model", "ModelFailed", "Recognizer", "Turn", "Voice"]


class ModelFailed(Exception):
    """The model could not answer; its message is for the client."""


class Turn:
    """What the caller said: `pcm` is 16-bit mono at `rate` samples a second, in the machine's byte order."""

    def __init__(self, item_id: str, pcm: bytes, rate: int) -> None:
        self.item_id = item_id
        self.pcm = pcm
        self.rate = rate
        self._words: str | None = None
        self._heard = trio.Event()

    def settle(self, words: str | None) -> None:
        """For whoever listens: these are the words; None if nobody knows."""
        self._words = words
        self._heard.set()

    async def words(self) -> str | None:
        """In words, once it is known; None without a recognizer, or if it failed."""
        await self._heard.wait()
        return self._words


class Recognizer(Protocol):
    async def transcribe(self, pcm: bytes, rate: int, language: str | None) -> str:
        """Raises any exception if it cannot; it may be cancelled at any time."""


class Voice(Protocol):
    """How a model speaks, writes and calls functions, in the order in which it does."""

    @property
    def rate(self) -> int:
        """Samples a second that `play` takes."""

    def say(self, text: str) -> None:
        """The next words: what is written, or what the sound that follows says."""

    async def play(self, pcm: bytes) -> None:
        """The next sound. Waits while more than 5 s are still to be played."""

    def call(self, name: str, arguments: str) -> str:
        """Call a function of the client's, with JSON: the id of the call. What it returns leads to another response."""


class Model(Protocol):
    async def respond(self, plan: Plan, turn: Turn | None, voice: Voice) -> Usage | None:
        """Answer. `turn`: what the caller just said, if that is what is to be answered. Cancelled when the caller interrupts.

        Raises ModelFailed; anything else that it raises is logged, and the client is told that the model failed."""

"""A model made of a dialogue, which writes, and a speaker, who says it: sentence by sentence, while the next is written.

1. What the dialogue writes is cut into sentences; each is said as soon as it is whole, so the first sound does not wait for
   the last word. At most MAX_AHEAD of them wait: then the dialogue does.
2. Each sentence's words go to the client just before its sound, so that a message that is cut keeps what was heard.
3. Calls of functions keep their place among the sentences.
4. A dialogue that fails in whatever way, or says nothing for as long as its patience says (PATIENCE_SECONDS if it states none;
   from the moment on at which it is known what the caller said), is an error for the client; the caller hears
   a sentence, if there is one for that, after what had been written.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TypeAlias

import trio

from agent.codecs.resampling import Resampler
from agent.realtime.parts import CutShort, Dialogue, Manner, ModelFailed, Speaker, Turn, Voice, patience_of
from agent.realtime.response import Plan
from agent.realtime.server_events import Usage

__all__ = ["Sentences", "SpeakingModel"]

# Implementation constants
MAX_AHEAD = 8  # sentences that wait to be spoken
MIN_LETTERS = 8  # of a piece that is spoken by itself: "1. " is no sentence
MAX_LETTERS = 240  # then it is cut between words
PATIENCE_SECONDS = 20.0

# From the first mark of a row only, and never back: what anybody writes is read once.
_END = re.compile(r"(?<![.!?…。！？])[.!?…。！？]++[\"')\]»”’]*+\s++|\n++")


class Sentences:
    """Cuts a stream of text into pieces to speak. Nothing is lost: the pieces joined are the text."""

    def __init__(self) -> None:
        self._text = ""

    def feed(self, text: str) -> list[str]:
        """The pieces that are whole now."""
        text, start = self._text + text, 0
        pieces = []
        while (end := _end(text[start : start + MAX_LETTERS + 1])) is not None:
            pieces.append(text[start : start + end])
            start += end
        self._text = text[start:]
        return pieces

    def finish(self) -> str:
        """What is left."""
        text, self._text = self._text, ""
        return text


def _end(text: str) -> int | None:
    """Where its first piece ends; of a text longer than MAX_LETTERS only the next letter matters."""
    for found in _END.finditer(text, 0, MAX_LETTERS):
        if len(text[: found.end()].strip()) >= MIN_LETTERS:
            return found.end()
    if len(text) <= MAX_LETTERS:
        return None
    space = text.rfind(" ", MIN_LETTERS, MAX_LETTERS)
    return space + 1 if space > 0 else MAX_LETTERS


@dataclass(frozen=True, slots=True)
class _Call:
    name: str


@dataclass(frozen=True, slots=True)
class _Argument:
    text: str


_Piece: TypeAlias = str | _Call | _Argument


class SpeakingModel:
    """`apology`: what the caller hears when there is no answer; "" for nothing."""

    def __init__(
        self, dialogue: Dialogue, speaker: Speaker, *, patience: float | None = None, apology: str = ""
    ) -> None:
        """`patience`: in seconds, instead of the dialogue's own."""
        self._dialogue = dialogue
        self._speaker = speaker
        self._patience = patience_of(dialogue, PATIENCE_SECONDS) if patience is None else patience
        self._apology = apology

    @property
    def patience_seconds(self) -> float:
        """`Patient`: each part is given up on its own account first."""
        return self._patience + patience_of(self._speaker, PATIENCE_SECONDS)

    async def respond(self, plan: Plan, turn: Turn | None, voice: Voice) -> Usage | None:
        """`Model.respond`."""
        put, take = trio.open_memory_channel[_Piece](MAX_AHEAD)
        writer = _Writer(put, speaks=plan.speaks)
        usage: Usage | None = None
        failure: Exception | None = None

        async def utter() -> None:
            nonlocal failure
            try:
                await self._utter(plan, take, voice)
            except ModelFailed as error:
                failure = failure or error  # what went wrong first is what the client is to hear of
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(utter)
            nursery.start_soon(writer.watch, turn, self._patience)
            async with put:
                try:
                    usage = await self._ask(plan, turn, writer)
                except CutShort as error:  # what there is of the answer is said
                    failure = error
                except Exception as error:  # noqa: BLE001 - raised again, once the caller has been told
                    failure = error
                    if plan.speaks and self._apology:
                        await writer.break_off(self._apology)
                await writer.finish()
        if failure is not None:
            raise failure
        return usage

    async def _ask(self, plan: Plan, turn: Turn | None, writer: _Writer) -> Usage | None:
        with writer.scope:
            return await self._dialogue.answer(plan, turn, writer)
        raise ModelFailed(f"the model said nothing for {self._patience:g} s")

    async def _utter(self, plan: Plan, pieces: trio.MemoryReceiveChannel[_Piece], voice: Voice) -> None:
        manner = Manner(plan.voice, plan.speed)
        async for piece in pieces:
            match piece:
                case _Call(name):
                    voice.call(name)
                case _Argument(text):
                    voice.argue(text)
                case text:
                    voice.say(text)
                    if plan.speaks and text.strip():
                        await self._speak(text, manner, voice)

    async def _speak(self, text: str, manner: Manner, voice: Voice) -> None:
        resampler = Resampler(self._speaker.rate, voice.rate)

        async def play(pcm: bytes) -> None:
            await voice.play(resampler.feed(pcm))

        await self._speaker.speak(text.strip(), manner, play)
        await voice.play(resampler.finish())


class _Writer:
    """`parts.Writer`. Its words wait in a short row; while it waits for room there, nobody is impatient."""

    def __init__(self, pieces: trio.MemorySendChannel[_Piece], *, speaks: bool) -> None:
        self._pieces = pieces
        self._sentences = Sentences() if speaks else None
        self.scope = trio.CancelScope()
        """Cancelled when nothing has been written for too long."""
        self._waits = trio.CancelScope()
        self._patience = math.inf

    async def watch(self, turn: Turn | None, patience: float) -> None:
        """Be so patient, once it is known what the caller said."""
        with self._waits:
            if turn is not None:
                await turn.words()
            self._patience = patience
            self.scope.deadline = trio.current_time() + patience

    async def write(self, text: str) -> None:
        for piece in self._sentences.feed(text) if self._sentences is not None else [text]:
            await self._put(piece)
        await self._put(None)

    async def call(self, name: str) -> None:
        await self._flush()
        await self._put(_Call(name))

    async def argue(self, text: str) -> None:
        await self._put(_Argument(text))

    async def break_off(self, apology: str) -> None:
        """What was written stays as it is, be it half a word."""
        rest = await self._flush()
        await self._put(f" {apology}" if rest and not rest[-1].isspace() else apology)

    async def finish(self) -> None:
        self._waits.cancel()
        await self._flush()

    async def _flush(self) -> str:
        """What it was."""
        rest = self._sentences.finish() if self._sentences is not None else ""
        if rest:
            await self._put(rest)
        return rest

    async def _put(self, piece: _Piece | None) -> None:
        self.scope.deadline = math.inf
        if piece is not None:
            await self._pieces.send(piece)
        self.scope.deadline = trio.current_time() + self._patience

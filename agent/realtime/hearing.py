"""A recognizer at work on one call's turns: it hears each from its first sound, while the caller still speaks.

1. `begin`: the turn's audio so far (with the padding before it), and from then on what comes, in pieces of PIECE_MS or more.
2. `end`: the turn is whole; the words come, or `transcription_failed` within `patience_seconds`. A turn that was not begun
   (committed by hand) is heard at once.
3. `drop`: it was no turn.

Nothing is copied for the recognizer but what it is about to read: one that is slow reads from what is kept of the caller's
audio, and misses what is not kept any more (`unheard_ms`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncIterator, Callable

import trio

from agent.realtime.listening import Listening
from agent.realtime.parts import GuessingRecognizer, ModelFailed, Recognizer, Turn, patience_of
from agent.realtime.session import RealtimeSession
from service.logs import get_logger

__all__ = ["Hearing"]

log = get_logger()

# Implementation constants
PIECE_MS = 60.0
PATIENCE_SECONDS = 10.0  # from the end of a turn to its words, with a recognizer that states no patience of its own
MAX_RECOGNITIONS = 4  # of one call at a time; what is said meanwhile has no words


class Hearing:
    """`carry_out`: what the session orders is to be carried out."""

    def __init__(
        self,
        recognizer: Recognizer | None,
        listening: Listening,
        session: RealtimeSession,
        carry_out: Callable[[], None],
        call_id: str,
    ) -> None:
        self._recognizer = recognizer
        self._listening = listening
        self._session = session
        self._carry_out = carry_out
        self._log = log.bind(call=call_id)
        self._under_way: dict[str, _Recognition] = {}
        self._latest: _Recognition | None = None  # of the turn that goes on
        self.counters: Counter[str] = Counter()
        """`recognitions`, `refused`, `unheard_ms`."""

    @property
    def patience_seconds(self) -> float:
        """From the end of a turn to its words."""
        return patience_of(self._recognizer, PATIENCE_SECONDS)

    def begin(self, item_id: str, start_ms: float, nursery: trio.Nursery) -> None:
        if self._recognizer is None:
            return
        if len(self._under_way) >= MAX_RECOGNITIONS:
            self.counters["refused"] += 1
            return
        self.counters["recognitions"] += 1
        self._latest = self._under_way[item_id] = recognition = _Recognition(
            item_id, start_ms, self._listening, self.counters
        )
        nursery.start_soon(self._recognize, self._recognizer, recognition)

    def heard(self) -> None:
        """More of the caller's audio has come."""
        if self._latest is not None:
            self._latest.wake()

    def end(self, item_id: str, start_ms: float, end_ms: float, nursery: trio.Nursery) -> Turn:
        """The turn, whose words come later."""
        turn = Turn(item_id, self._listening.audio(start_ms, end_ms), self._listening.rate)
        if item_id not in self._under_way:
            self.begin(item_id, start_ms, nursery)
        if (recognition := self._under_way.get(item_id)) is not None:
            recognition.end(turn, end_ms, self.patience_seconds)
        else:
            why = "there is no recognizer here" if self._recognizer is None else "the recognizer is too slow"
            turn.settle(None)
            self._session.transcription_failed(item_id, why)
        return turn

    def drop(self, item_id: str) -> None:
        if (recognition := self._under_way.get(item_id)) is not None:
            recognition.scope.cancel()

    async def _recognize(self, recognizer: Recognizer, recognition: _Recognition) -> None:
        words: str | None = None
        why = "the recognizer took too long"
        try:
            with recognition.scope:
                try:
                    words = await self._ask(recognizer, recognition)
                except ModelFailed as failure:
                    why = str(failure)
                except Exception as error:  # noqa: BLE001 - a recognizer's bugs end here
                    self._log.error("the recognizer failed", exc_info=error)
                    why = "the recognizer failed"
                recognition.scope.deadline = math.inf
                await recognition.ended.wait()
        finally:
            del self._under_way[recognition.item_id]
        if recognition.turn is not None:
            self._settle(recognition.turn, words, why)

    async def _ask(self, recognizer: Recognizer, recognition: _Recognition) -> str:
        transcription = self._session.settings.audio.input.transcription
        language = transcription.language if transcription is not None else None
        rate = self._listening.rate
        if not isinstance(recognizer, GuessingRecognizer):
            return await recognizer.transcribe(recognition, rate, language)

        def tell(words: str) -> None:
            self._session.guessed(recognition.item_id, words, trio.current_time())
            self._carry_out()

        return await recognizer.guess(recognition, rate, language, tell)

    def _settle(self, turn: Turn, words: str | None, why: str) -> None:
        turn.settle(words)
        if words is None:
            self._session.transcription_failed(turn.item_id, why)
        else:
            self._session.transcribed(turn.item_id, words, len(turn.pcm) / (2 * turn.rate))
        self._carry_out()


class _Recognition(AsyncIterator[bytes]):
    """The audio of one turn, as it comes."""

    def __init__(self, item_id: str, start_ms: float, listening: Listening, counters: Counter[str]) -> None:
        self.item_id = item_id
        self.scope = trio.CancelScope()
        self.ended = trio.Event()
        self.turn: Turn | None = None
        """Once it is whole."""
        self._listening = listening
        self._counters = counters
        self._cursor = start_ms
        self._end_ms = math.inf
        self._more = trio.Event()

    def wake(self) -> None:
        if self._waiting_ms >= PIECE_MS:
            self._more.set()

    def end(self, turn: Turn, end_ms: float, patience: float) -> None:
        self.turn = turn
        self._end_ms = end_ms
        self.scope.deadline = trio.current_time() + patience
        self.ended.set()
        self._more.set()

    @property
    def _waiting_ms(self) -> float:
        return min(self._listening.heard_ms, self._end_ms) - self._cursor

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        while self._waiting_ms < PIECE_MS and self.turn is None:
            self._more = trio.Event()
            await self._more.wait()
        if self._waiting_ms <= 0:
            raise StopAsyncIteration
        missed = self._listening.kept_from - self._cursor
        if missed > 0:
            self._counters["unheard_ms"] += round(missed)
        start, self._cursor = self._cursor, self._cursor + self._waiting_ms
        return self._listening.audio(start, self._cursor)

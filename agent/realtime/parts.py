"""What a voice agent is made of, each part to be replaced: who finds turns, who knows words, who answers, who speaks.

    caller ─ Detector ─ Recognizer ─ Dialogue ─ Speaker ─ caller
                                     └─────── Model ─┘
A `Model` answers with words and sound of its own; `SpeakingModel` (speaking.py) makes one of a Dialogue and a Speaker.

Every part may be cancelled wherever it waits, and may be used for many calls at once: what belongs to one call is made
per call. What a part raises ends the response, or leaves the turn without words, never the call. Sound is 16-bit mono in the
machine's byte order.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import trio

from agent.realtime.response import Limit, Plan
from agent.realtime.server_events import Usage
from agent.voice import Turn as TurnChange

__all__ = [
    "Companion",
    "CutShort",
    "Detector",
    "Detectors",
    "Dialogue",
    "GuessingRecognizer",
    "Manner",
    "Model",
    "ModelFailed",
    "PersonalDialogue",
    "Play",
    "Recognizer",
    "SpeakUp",
    "Speaker",
    "Turn",
    "Voice",
    "Writer",
]

Play: TypeAlias = Callable[[bytes], Awaitable[None]]
SpeakUp: TypeAlias = Callable[[], None]
"""Ask to be asked: as soon as nobody speaks, there is a response with nothing new to answer."""


class ModelFailed(Exception):
    """There is no answer; the message is for the client."""


class CutShort(Exception):
    """The answer ends here, though it is not whole: why, in the API's words. What was said of it stands."""

    def __init__(self, reason: Limit, usage: Usage | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.usage = usage


class Turn:
    """What the caller said: `pcm` at `rate` samples a second."""

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


class Detector(Protocol):
    """Finds where turns begin and end; one for each call, made anew when the client sets turn detection."""

    @property
    def onset_ms(self) -> float:
        """How long before it is told a turn has begun."""

    def feed(self, pcm: bytes) -> list[TurnChange]:
        """The turns that this piece of audio, of any length, brings to light. It must not wait: it is called for each frame."""

    def silence(self) -> list[TurnChange]:
        """No audio comes (DTX, or a caller who is muted)."""


class Detectors(Protocol):
    def start(self, rate: int, *, threshold: float, pause_ms: int, speaking: bool) -> Detector:
        """One for audio of `rate` samples a second: 8000 or 16000. `threshold`: 0 takes much for speech, 1 little; a turn ends
        when `pause_ms` of it are none; `speaking`: one has begun already."""


class Recognizer(Protocol):
    async def transcribe(self, audio: AsyncIterator[bytes], rate: int, language: str | None) -> str:
        """The words of one turn; "" if there are none. `audio` comes piece by piece while the caller still speaks, and ends
        with the turn; to wait for its next piece may be given up, and begun anew. It may raise anything if it cannot."""


@runtime_checkable
class GuessingRecognizer(Recognizer, Protocol):
    """One that has words before the turn is over: they tell how long a pause may be, and clients see them come."""

    async def guess(
        self, audio: AsyncIterator[bytes], rate: int, language: str | None, tell: Callable[[str], None]
    ) -> str:
        """As `transcribe`; `tell` takes all words so far, as they seem now, and does not wait."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How to speak, as the session asks: the name of a voice, and 1.0 for its usual speed."""

    voice: str = ""
    speed: float = 1.0


class Speaker(Protocol):
    @property
    def rate(self) -> int:
        """Samples a second of what it plays."""

    async def speak(self, text: str, manner: Manner, play: Play) -> None:
        """One sentence, or a few, in pieces as they come. `play` waits when it is ahead of the caller's ear.
        Raises ModelFailed."""


class Writer(Protocol):
    """Where a dialogue writes its answer, in order."""

    async def write(self, text: str) -> None:
        """The next words. Waits while many are still to be spoken."""

    async def call(self, name: str) -> None:
        """Begin to call a function of the client's. What it returns leads to another response."""

    async def argue(self, text: str) -> None:
        """The next piece of that call's arguments, which are JSON."""


class Dialogue(Protocol):
    async def answer(self, plan: Plan, turn: Turn | None, writer: Writer) -> Usage | None:
        """Answer in words and calls of functions. `turn`: what the caller just said, if that is what is to be answered.
        Raises ModelFailed or CutShort; whatever else it raises is logged, and the client is told that the model failed."""


class Companion(Dialogue, Protocol):
    """A dialogue with one caller."""

    async def run(self, speak_up: SpeakUp) -> None:
        """Beside the call, for as long as it goes on: what is to be said without being asked."""


@runtime_checkable
class PersonalDialogue(Dialogue, Protocol):
    """One that remembers more of a caller than the items of the conversation, or speaks up by itself."""

    def begin(self) -> Companion:
        """For one call."""


class Voice(Protocol):
    """How a model speaks, writes and calls functions, in the order in which it does."""

    @property
    def rate(self) -> int:
        """Samples a second that `play` takes."""

    def say(self, text: str) -> None:
        """The next words: what is written, or what the sound that follows says."""

    async def play(self, pcm: bytes) -> None:
        """The next sound. Waits while more than 5 s are still to be played."""

    def call(self, name: str, arguments: str = "") -> str:
        """Call a function of the client's: the id of the call. What it returns leads to another response."""

    def argue(self, text: str) -> None:
        """More of that call's arguments, which are JSON in the end."""


class Model(Protocol):
    async def respond(self, plan: Plan, turn: Turn | None, voice: Voice) -> Usage | None:
        """Answer. `turn`: what the caller just said, if that is what is to be answered. Cancelled when the caller interrupts.

        Raises ModelFailed or CutShort; anything else that it raises is logged, and the client is told that the model failed."""

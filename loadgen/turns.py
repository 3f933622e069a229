"""What the conversations of a run measure: how turns ended, how long answers took and where that time went, interruptions.

    last voiced frame sent ─ speech_stopped ─ response.created ─ first frame ─ first frame that is not silence
                           hearing          deciding           speaking       silence
    └──────────────────────────────── answer ──────────────────────────────────┘

Sums and histograms only: however many turns there are, they take no more room, and those of several processes add up.
"""

from __future__ import annotations

import enum
import math
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import msgspec

from loadgen.distribution import Histogram
from loadgen.script import Sentence

__all__ = [
    "HONOURED_WITHIN",
    "LATENCIES",
    "STILL_SOUNDS",
    "Interruption",
    "Response",
    "Turn",
    "TurnFigures",
    "Verdict",
    "count_word",
]

# Implementation constants
HONOURED_WITHIN = 1.0  # seconds from the first voiced frame over an answer until nothing of that comes any more
STILL_SOUNDS = 0.1  # seconds since the last frame
TOLD_WITHIN = 5.0  # and until an event says what has become of it
MAX_WORDS = 40  # different ones that are told apart, of what the other side chose
MAX_LENGTH = 80

LATENCIES = ("hearing", "deciding", "speaking", "silence", "answer")


class TurnFigures(msgspec.Struct, kw_only=True):
    asked: int = 0
    completed: int = 0
    """Answered, and heard to the end."""
    interrupted: int = 0
    """Spoken over by ourselves, which silenced them."""
    failed: dict[str, int] = {}
    """By reason."""
    functions: int = 0
    """Calls of functions that were answered."""
    unasked: int = 0
    """Responses that answer no turn: greetings, timers."""
    heard: dict[str, int] = {}
    """What the agent says it heard → turns; "" where it heard no words."""
    unread: int = 0
    """Messages that are no events."""
    interruptions: int = 0
    honoured: int = 0
    over_before: int = 0
    """Interruptions of answers that had come to their end by themselves: they say nothing."""

    hearing: Histogram = msgspec.field(default_factory=Histogram)
    deciding: Histogram = msgspec.field(default_factory=Histogram)
    speaking: Histogram = msgspec.field(default_factory=Histogram)
    silence: Histogram = msgspec.field(default_factory=Histogram)
    answer: Histogram = msgspec.field(default_factory=Histogram)
    cleared: Histogram = msgspec.field(default_factory=Histogram)
    """Of interruptions that were honoured: from the first voiced frame that was sent to `output_audio_buffer.cleared`."""
    silenced: Histogram = msgspec.field(default_factory=Histogram)
    """And to the last frame of the answer that came."""

    def merge(self, other: TurnFigures) -> None:
        for name in self.__struct_fields__:
            mine, theirs = getattr(self, name), getattr(other, name)
            if isinstance(mine, Histogram):
                mine.merge(theirs)
            elif isinstance(mine, dict):
                setattr(self, name, dict(Counter(mine) + Counter(theirs)))
            else:
                setattr(self, name, mine + theirs)


def count_word(counts: dict[str, int], word: str) -> None:
    """One more; a server that thinks up ever new words fills nothing."""
    word = word[:MAX_LENGTH]
    if word not in counts and len(counts) >= MAX_WORDS:
        word = "others"
    counts[word] = counts.get(word, 0) + 1


@dataclass(slots=True)
class Response:
    """One that is not over: being made, or heard."""

    turn: int
    """0: it answers none."""
    created_at: float
    is_done: bool = False
    sounds: bool = False


@dataclass(slots=True)
class Turn:
    """The present one. Times are not numbers until they are known."""

    number: int
    sentence: Sentence
    ended_at: float = math.nan
    """When the last voiced frame left."""
    stopped_at: float = math.nan
    created_at: float = math.nan
    frame_at: float = math.nan
    sound_at: float = math.nan
    expected: int = 0
    """Responses that were asked for and have not begun."""
    was_heard: bool = False
    """`speech_stopped` has come since it began."""
    answered_early: bool = False
    """A response began while we still spoke."""
    no_words: bool = False

    def missing(self) -> str:
        """Why there is no answer, or no end of it."""
        if not math.isnan(self.sound_at):
            return "no_end"
        if not math.isnan(self.created_at):
            return "no_transcript" if self.no_words else "no_answer"
        if self.answered_early:
            return "answered_early"
        return "not_heard" if math.isnan(self.stopped_at) else "no_response"

    def measure(self, figures: TurnFigures) -> None:
        """Its times, as far as they are known: a lossy network may bring a sound before the event that announces it."""
        stamps = (self.ended_at, self.stopped_at, self.created_at, self.frame_at, self.sound_at)
        spans = [after - before for before, after in pairwise(stamps)] + [self.sound_at - self.ended_at]
        for name, seconds in zip(LATENCIES, spans, strict=True):
            if not math.isnan(seconds):
                getattr(figures, name).add(max(0.0, seconds))


class Verdict(enum.Enum):
    OPEN = "it is too early; or nothing of the answer comes any more, and no event has told whether it was cut"
    HONOURED = "it was cut"
    OVER_BEFORE = "it had ended by itself"
    NOT_SILENCED = "it goes on, or nobody says that it was cut"
    CALL_ENDED = "before a word was said over it"


@dataclass(slots=True)
class Interruption:
    """We speak over the answer to `turn`. By its sound it is judged once, HONOURED_WITHIN; events may take longer: on a lossy
    network one waits until it is sent again."""

    turn: int
    began_at: float = math.inf
    """When the first voiced frame left."""
    cleared_at: float = math.inf
    is_over: bool = False
    silent_from: float = math.nan
    """The last frame of the answer, when it was judged that nothing comes any more."""

    @property
    def due(self) -> float:
        return self.began_at + (HONOURED_WITHIN if math.isnan(self.silent_from) else TOLD_WITHIN)

    def judge(self, last_frame_at: float, now: float, *, at_last: bool) -> Verdict:
        """`at_last`: no more will be known."""
        if math.isnan(self.silent_from):
            if now < self.due and not at_last:
                return Verdict.OPEN
            if self.began_at == math.inf:
                return Verdict.CALL_ENDED
            if now - last_frame_at < STILL_SOUNDS:
                return Verdict.OVER_BEFORE if self.is_over else Verdict.NOT_SILENCED
            self.silent_from = max(last_frame_at, self.began_at)
        if self.cleared_at < math.inf:
            return Verdict.HONOURED
        if self.is_over:
            return Verdict.OVER_BEFORE
        return Verdict.NOT_SILENCED if at_last else Verdict.OPEN

    def measure(self, figures: TurnFigures, verdict: Verdict) -> bool:
        """Whether the turn whose answer it was went well."""
        figures.interruptions += 1
        if verdict is Verdict.HONOURED:
            figures.honoured += 1
            figures.interrupted += 1
            figures.cleared.add(max(0.0, self.cleared_at - self.began_at))
            figures.silenced.add(self.silent_from - self.began_at)
        elif verdict is Verdict.OVER_BEFORE:
            figures.over_before += 1
            figures.completed += 1
        else:
            return False
        return True

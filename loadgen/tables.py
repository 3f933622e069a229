"""What a caller who converses does, as a table.

    WAITING → THINKING → SPEAKING → LISTENING → HEARING → THINKING …  FINISHED
                            ↑______ interrupts ______|

In SPEAKING no time runs: each frame that leaves brings its end nearer, and a call whose frames do not leave fails by itself.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from protocol.fsm import Cell, Deadline, Machine, Region, to

__all__ = [
    "CALLER",
    "Answered",
    "Caller",
    "Does",
    "HungUp",
    "Interrupted",
    "PatienceOver",
    "Said",
    "SessionReady",
    "SoundCame",
    "ThoughtOver",
    "TurnFailed",
    "new_caller",
]

X, _ = Cell.ILLEGAL, Cell.IGNORE


class Caller(enum.Enum):
    WAITING = "the session is not there yet"
    THINKING = "silent, until the next sentence"
    SPEAKING = "says a sentence"
    LISTENING = "has said it; no sound of an answer yet"
    HEARING = "hears the answer"
    FINISHED = "says no more"


class Does(enum.Enum):
    ASK = "begin a turn"
    COMPLETE = "the turn was answered"
    CUT = "speak over the answer: whether it stops will be judged"
    FAIL = "the turn was not answered as it should be"


@dataclass(frozen=True, slots=True)
class SessionReady:
    pass


@dataclass(frozen=True, slots=True)
class ThoughtOver:
    pass


@dataclass(frozen=True, slots=True)
class Said:
    """The last voiced frame of the sentence has left."""


@dataclass(frozen=True, slots=True)
class SoundCame:
    """The first frame of an answer that is not silence."""


@dataclass(frozen=True, slots=True)
class Answered:
    """All responses of the turn are done, and have been heard to their end."""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """By ourselves."""


@dataclass(frozen=True, slots=True)
class PatienceOver:
    pass


@dataclass(frozen=True, slots=True)
class TurnFailed:
    pass


@dataclass(frozen=True, slots=True)
class HungUp:
    pass


ask, fail, end = to(Caller.SPEAKING, Does.ASK), to(Caller.THINKING, Does.FAIL), to(Caller.FINISHED)
done, cut, lost = (
    to(Caller.THINKING, Does.COMPLETE),
    to(Caller.SPEAKING, Does.CUT, Does.ASK),
    to(Caller.FINISHED, Does.FAIL),
)
CALLER = Region(
    "caller",
    Caller.WAITING,
    (SessionReady, ThoughtOver, Said, SoundCame, Answered, Interrupted, PatienceOver, TurnFailed, HungUp),
    {
        Caller.WAITING: (to(Caller.THINKING), X, X, X, X, X, X, _, end),
        Caller.THINKING: (_, ask, X, X, X, X, X, _, end),
        Caller.SPEAKING: (_, X, to(Caller.LISTENING), X, X, X, X, fail, lost),
        Caller.LISTENING: (_, X, X, to(Caller.HEARING), X, X, fail, fail, lost),
        Caller.HEARING: (_, X, X, X, done, cut, fail, fail, lost),
        Caller.FINISHED: (_, _, _, _, _, _, _, _, _),
    },
    {
        Caller.THINKING: Deadline("think", ThoughtOver),
        Caller.LISTENING: Deadline("patience", PatienceOver),
        Caller.HEARING: Deadline("answer", PatienceOver),
    },
)


def new_caller() -> Machine:
    return Machine((CALLER,))

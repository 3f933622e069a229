"""The state machines of a session as tables: its beginning, the caller's turn, a response, and what is heard of it.

opening   UNSETTLED → SETTLED                            one a session
turn      QUIET ⇄ SPEAKING ⇄ PAUSING                     the same
progress  GENERATING → COMPLETED | CANCELLED | FAILED | INCOMPLETE      one a response
playback  SILENT → PLAYING → DRAINING → HEARD, or CUT                   the same

A response that ends by itself is heard to its end, one that fails too: what is there of it may say why. One that is cancelled is
cut. Joint rules say so.
"""

# ruff: noqa: E501  (a table row is one line)

from __future__ import annotations

import enum
from dataclasses import dataclass

from protocol.fsm import Cell, Deadline, Joint, Machine, Region, to

__all__ = [
    "OPENING",
    "PLAYBACK",
    "PROGRESS",
    "RESPONSE_JOINTS",
    "RESPONSE_REGIONS",
    "SESSION_REGIONS",
    "TURN",
    "AudioQueued",
    "Cancelled",
    "Cleared",
    "Completed",
    "Effect",
    "Failed",
    "Incomplete",
    "Opening",
    "Playback",
    "PlayedOut",
    "Progress",
    "Settled",
    "SpeechBegan",
    "SpeechEnded",
    "SpeechPaused",
    "Turn",
    "TurnDropped",
    "new_response_machine",
    "new_session_machine",
]

X, _ = Cell.ILLEGAL, Cell.IGNORE


class Opening(enum.Enum):
    UNSETTLED = "the client has not said yet what it wants: the caller's audio is kept"
    SETTLED = "what was kept, and what comes, is searched for turns"


class Turn(enum.Enum):
    QUIET = "the caller does not speak"
    SPEAKING = "the caller speaks"
    PAUSING = "the caller may go on, or not"


class Progress(enum.Enum):
    GENERATING = "the model is at work"
    COMPLETED = "all of it is there"
    CANCELLED = "the caller interrupted, or the client gave it up"
    FAILED = "the model could not"
    INCOMPLETE = "it was cut off by a limit"


class Playback(enum.Enum):
    SILENT = "no sound of it yet"
    PLAYING = "sound of it is played, and more may come"
    DRAINING = "all its sound is there, and being played"
    HEARD = "the caller heard all of it"
    CUT = "the rest was thrown away"


class Effect(enum.Enum):
    DETECT = "look for turns from now on, in what was kept too"
    JUDGE_PAUSE = "let the pause be as long as what was said suggests"
    FORGET = "nobody is to listen to this turn any more"
    TELL_STARTED = "the caller began to speak"
    TELL_STOPPED = "the caller's turn is over"
    TELL_AUDIO_STARTED = "output_audio_buffer.started"
    TELL_AUDIO_STOPPED = "output_audio_buffer.stopped"
    CUT_AUDIO = "be silent at once; tell what was heard, and output_audio_buffer.cleared"
    STOP_MODEL = "end the model's work on it"
    FINISH = "close what is open of it, and tell response.done"


@dataclass(frozen=True, slots=True)
class Settled:
    """The client has sent an event, or none for long enough."""


@dataclass(frozen=True, slots=True)
class SpeechBegan:
    pass


@dataclass(frozen=True, slots=True)
class SpeechPaused:
    """`semantic_vad` only."""


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    pass


@dataclass(frozen=True, slots=True)
class TurnDropped:
    """The client cleared or committed the buffer, or switched turn detection off."""


@dataclass(frozen=True, slots=True)
class Completed:
    pass


@dataclass(frozen=True, slots=True)
class Incomplete:
    pass


@dataclass(frozen=True, slots=True)
class Cancelled:
    pass


@dataclass(frozen=True, slots=True)
class Failed:
    pass


@dataclass(frozen=True, slots=True)
class AudioQueued:
    pass


@dataclass(frozen=True, slots=True)
class PlayedOut:
    """All sound that was queued has been played."""


@dataclass(frozen=True, slots=True)
class Cleared:
    """Whatever of it is not played yet shall not be."""


E_ = Effect
OPENING = Region(
    "opening",
    Opening.UNSETTLED,
    (Settled,),
    {
        Opening.UNSETTLED: (to(Opening.SETTLED, E_.DETECT),),
        Opening.SETTLED: (_,),
    },
    {Opening.UNSETTLED: Deadline("settle_by", Settled)},
)

# SPEAKING needs no deadline: the detector says when it is over, also when no audio comes.
TURN = Region(
    "turn",
    Turn.QUIET,
    (SpeechBegan, SpeechPaused, SpeechEnded, TurnDropped),
    {
        Turn.QUIET: (to(Turn.SPEAKING, E_.TELL_STARTED), _, _, _),
        Turn.SPEAKING: (
            _,
            to(Turn.PAUSING, E_.JUDGE_PAUSE),
            to(Turn.QUIET, E_.TELL_STOPPED),
            to(Turn.QUIET, E_.FORGET),
        ),
        Turn.PAUSING: (to(Turn.SPEAKING), _, to(Turn.QUIET, E_.TELL_STOPPED), to(Turn.QUIET, E_.FORGET)),
    },
    {Turn.PAUSING: Deadline("pause", SpeechEnded)},
)

PROGRESS = Region(
    "progress",
    Progress.GENERATING,
    (Completed, Incomplete, Cancelled, Failed),
    {
        Progress.GENERATING: (
            to(Progress.COMPLETED, E_.FINISH),
            to(Progress.INCOMPLETE, E_.STOP_MODEL, E_.FINISH),
            to(Progress.CANCELLED, E_.STOP_MODEL, E_.FINISH),
            to(Progress.FAILED, E_.FINISH),
        ),
        Progress.COMPLETED: (X, X, _, _),
        Progress.CANCELLED: (_, _, _, _),
        Progress.FAILED: (X, X, _, _),
        Progress.INCOMPLETE: (_, _, _, _),
    },
)

PLAYBACK = Region(
    "playback",
    Playback.SILENT,
    (AudioQueued, PlayedOut, Cleared),
    {
        Playback.SILENT: (to(Playback.PLAYING, E_.TELL_AUDIO_STARTED), _, _),
        Playback.PLAYING: (_, _, to(Playback.CUT, E_.CUT_AUDIO)),
        Playback.DRAINING: (X, to(Playback.HEARD, E_.TELL_AUDIO_STOPPED), to(Playback.CUT, E_.CUT_AUDIO)),
        Playback.HEARD: (X, _, _),
        Playback.CUT: (_, _, _),
    },
)

_ENDED = frozenset({Progress.COMPLETED, Progress.INCOMPLETE, Progress.FAILED})
_GIVEN_UP = frozenset({Progress.CANCELLED})

SESSION_REGIONS = (OPENING, TURN)
RESPONSE_REGIONS = (PROGRESS, PLAYBACK)
RESPONSE_JOINTS = (
    Joint((_ENDED, frozenset({Playback.PLAYING})), to(Playback.DRAINING)),
    Joint((_ENDED, frozenset({Playback.SILENT})), to(Playback.HEARD)),
    Joint((_GIVEN_UP, frozenset({Playback.PLAYING})), to(Playback.CUT, E_.CUT_AUDIO)),
    Joint((_GIVEN_UP, frozenset({Playback.SILENT})), to(Playback.CUT)),
)


def new_session_machine() -> Machine:
    return Machine(SESSION_REGIONS)


def new_response_machine() -> Machine:
    return Machine(RESPONSE_REGIONS, RESPONSE_JOINTS)

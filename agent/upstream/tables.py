"""The state machines of a bridge as tables: the contact with the service, and what is heard of a response.

contact   CONNECTING → PROVING → OPEN; each may be lost → WAITING → CONNECTING …; GONE     one a call
outage    NONE → RUNNING → OVER; an OPEN contact ends it                                   the same
playback  QUEUED → PLAYING → DRAINING → HEARD, or CUT                                      one a response with sound

An outage begins with the first loss and ends when a contact has lasted: a service that accepts and hangs up at once is given
up like one that cannot be reached.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from protocol.fsm import Cell, Deadline, Joint, Machine, Region, to

__all__ = [
    "CONTACT",
    "CONTACT_JOINTS",
    "CONTACT_REGIONS",
    "OUTAGE",
    "PLAYBACK",
    "AllSent",
    "Cleared",
    "ConnectLate",
    "Contact",
    "Effect",
    "GaveUp",
    "Greeted",
    "Lost",
    "Outage",
    "Playback",
    "PlayedOut",
    "Proved",
    "RetryDue",
    "Sounded",
    "new_contact_machine",
    "new_playback_machine",
]

X, _ = Cell.ILLEGAL, Cell.IGNORE


class Contact(enum.Enum):
    CONNECTING = "the service is called, and has not said session.created yet"
    PROVING = "it is there, but only just"
    OPEN = "it is there"
    WAITING = "it was lost, and is called again in a while"
    GONE = "it was given up"


class Outage(enum.Enum):
    NONE = "all is well"
    RUNNING = "no contact has lasted for a while"
    OVER = "that took too long"


class Playback(enum.Enum):
    QUEUED = "sound of it waits"
    PLAYING = "sound of it is played, and more may come"
    DRAINING = "all its sound is there, and being played"
    HEARD = "the caller heard all of it"
    CUT = "the rest was thrown away"


class Effect(enum.Enum):
    DIAL = "call the service"
    HANG_UP = "give up the attempt"
    RESTORE = "tell the new session what the client asked and what was said"
    SETTLE = "responses that were under way have failed"
    TELL_LOSS = "an error for the client"
    END_CALL = "there is no service"
    TELL_STARTED = "output_audio_buffer.started"
    TELL_STOPPED = "output_audio_buffer.stopped"
    TELL_CLEARED = "output_audio_buffer.cleared, once the player is silent"


@dataclass(frozen=True, slots=True)
class Greeted:
    """session.created"""


@dataclass(frozen=True, slots=True)
class Lost:
    """It refused, closed, stalled, or cannot be reached."""


@dataclass(frozen=True, slots=True)
class ConnectLate:
    pass


@dataclass(frozen=True, slots=True)
class Proved:
    pass


@dataclass(frozen=True, slots=True)
class RetryDue:
    pass


@dataclass(frozen=True, slots=True)
class GaveUp:
    pass


@dataclass(frozen=True, slots=True)
class Sounded:
    """A frame of it goes to the caller."""


@dataclass(frozen=True, slots=True)
class AllSent:
    """The response is over, and no sound of it waits any more."""


@dataclass(frozen=True, slots=True)
class PlayedOut:
    """All of it that was sent has been played."""


@dataclass(frozen=True, slots=True)
class Cleared:
    """Whatever of it is not played yet shall not be."""


E_ = Effect
CONTACT = Region(
    "contact",
    Contact.CONNECTING,
    (Greeted, Lost, ConnectLate, Proved, RetryDue),
    {
        Contact.CONNECTING: (
            to(Contact.PROVING, E_.RESTORE),
            to(Contact.WAITING, E_.TELL_LOSS),
            to(Contact.WAITING, E_.HANG_UP, E_.TELL_LOSS),
            X,
            X,
        ),
        Contact.PROVING: (_, to(Contact.WAITING, E_.SETTLE, E_.TELL_LOSS), X, to(Contact.OPEN), X),
        Contact.OPEN: (_, to(Contact.WAITING, E_.SETTLE, E_.TELL_LOSS), X, X, X),
        Contact.WAITING: (_, _, X, X, to(Contact.CONNECTING, E_.DIAL)),
        Contact.GONE: (_, _, _, _, _),
    },
    {
        Contact.CONNECTING: Deadline("connect", ConnectLate),
        Contact.PROVING: Deadline("prove", Proved),
        Contact.WAITING: Deadline("retry", RetryDue),
    },
)

OUTAGE = Region(
    "outage",
    Outage.NONE,
    (GaveUp,),
    {Outage.NONE: (X,), Outage.RUNNING: (to(Outage.OVER),), Outage.OVER: (X,)},
    {Outage.RUNNING: Deadline("give_up", GaveUp)},
)

PLAYBACK = Region(
    "playback",
    Playback.QUEUED,
    (Sounded, AllSent, PlayedOut, Cleared),
    {
        Playback.QUEUED: (to(Playback.PLAYING, E_.TELL_STARTED), to(Playback.HEARD), _, to(Playback.CUT)),
        Playback.PLAYING: (_, to(Playback.DRAINING), _, to(Playback.CUT, E_.TELL_CLEARED)),
        Playback.DRAINING: (X, _, to(Playback.HEARD, E_.TELL_STOPPED), to(Playback.CUT, E_.TELL_CLEARED)),
        Playback.HEARD: (X, _, _, _),
        Playback.CUT: (X, _, _, _),
    },
)

CONTACT_REGIONS = (CONTACT, OUTAGE)
CONTACT_JOINTS = (
    Joint((frozenset({Contact.WAITING}), frozenset({Outage.NONE})), to(Outage.RUNNING)),
    Joint((frozenset({Contact.OPEN}), frozenset({Outage.RUNNING, Outage.OVER})), to(Outage.NONE)),
    Joint(
        (frozenset({Contact.CONNECTING, Contact.WAITING}), frozenset({Outage.OVER})),
        to(Contact.GONE, E_.HANG_UP, E_.END_CALL),
    ),
)


def new_contact_machine() -> Machine:
    return Machine(CONTACT_REGIONS, CONTACT_JOINTS)


def new_playback_machine() -> Machine:
    return Machine((PLAYBACK,))

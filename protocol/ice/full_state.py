"""States and settings of the full agent."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from protocol.fsm import Cell, Deadline, Region, to
from protocol.ice.checks import RTO
from protocol.ice.consent import EXPIRED, INTERVAL

__all__ = [
    "FULL_AGENT",
    "Closed",
    "GaveUp",
    "IceFullConfig",
    "Nomination",
    "Restarted",
    "Selected",
    "Started",
    "State",
    "Validated",
]

# Specification constants
TA = 0.05  # RFC 8445 §14.2


class Nomination(enum.Enum):
    REGULAR = "regular"
    AGGRESSIVE = "aggressive"


@dataclass(frozen=True, slots=True)
class IceFullConfig:
    """All times in seconds."""

    nomination: Nomination = Nomination.REGULAR
    nomination_delay: float = 0.05  # how long a better pair may take after the first success
    repeat_nomination: bool = False  # USE-CANDIDATE in consent checks too, as Chromium does
    ta: float = TA
    rto: float = RTO
    check_transmissions: int = 7  # RFC 8489 §6.2.1, Rc
    check_final_wait: float = 8.0  # RFC 8489 §6.2.1, Rm times RTO
    connect_timeout: float = 30.0
    consent_interval: float = INTERVAL
    consent_late: float = 10.0
    consent_expired: float = EXPIRED
    max_pairs: int = 64  # more remote candidates are dropped and counted
    base: bytes = b""  # the `local` of every path


class State(enum.Enum):
    NEW = "new"
    CHECKING = "checking"
    VALID = "valid"
    CONNECTED = "connected"
    RESTARTING = "restarting"  # the old pair carries the call, new ones are checked
    FAILED = "failed"
    CLOSED = "closed"


class Started:
    """The owner gave the signal."""


class Validated:
    """A pair succeeded."""


class Selected:
    """A pair was nominated, and its check succeeded."""


class Restarted:
    """The owner gave new credentials of both sides."""


class GaveUp:
    """Nothing was selected in time, or consent is lost."""


class Closed:
    """The owner closed the agent."""


_ILLEGAL, _IGNORE = Cell.ILLEGAL, Cell.IGNORE

FULL_AGENT = Region(
    name="ice full agent",
    initial=State.NEW,
    events=(Started, Validated, Selected, Restarted, GaveUp, Closed),
    rows={
        State.NEW: (to(State.CHECKING), _ILLEGAL, _ILLEGAL, _IGNORE, _ILLEGAL, to(State.CLOSED)),
        State.CHECKING: (_ILLEGAL, to(State.VALID), _ILLEGAL, _IGNORE, to(State.FAILED), to(State.CLOSED)),
        State.VALID: (
            _ILLEGAL,
            _IGNORE,
            to(State.CONNECTED),
            to(State.RESTARTING),
            to(State.FAILED),
            to(State.CLOSED),
        ),
        State.CONNECTED: (_ILLEGAL, _IGNORE, _IGNORE, to(State.RESTARTING), to(State.FAILED), to(State.CLOSED)),
        State.RESTARTING: (_ILLEGAL, _IGNORE, to(State.CONNECTED), _IGNORE, to(State.FAILED), to(State.CLOSED)),
        State.FAILED: (_ILLEGAL, _ILLEGAL, _ILLEGAL, _IGNORE, _ILLEGAL, to(State.CLOSED)),
        State.CLOSED: (_ILLEGAL, _ILLEGAL, _ILLEGAL, _IGNORE, _ILLEGAL, _IGNORE),
    },
    deadlines={
        State.CHECKING: Deadline("connect_timeout", GaveUp),
        State.VALID: Deadline("connect_timeout", GaveUp),
        State.CONNECTED: Deadline("consent_expired", GaveUp),
        State.RESTARTING: Deadline("consent_expired", GaveUp),
    },
)

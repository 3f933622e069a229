"""The states of an association as a table (RFC 9260 §4, figure 3).

Two differences from the figure. CLOSED is split: CLOSED has not begun, DEAD has ended and is never left, because one
association belongs to one DTLS association. And SHUTDOWN-SENT's collision goes where §9.2 says.

The retransmission timers T1 and T2 are not deadlines of states but run inside them, with a bounded number of tries
that ends in `Failed`; so does T3 in ESTABLISHED and SHUTDOWN-PENDING (a peer that is silent but owes us nothing is
asked by HEARTBEAT, §8.3). The whole shutdown has the guard T5.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from protocol.fsm import Cell, Deadline, Region, to

__all__ = [
    "REGION",
    "Aborted",
    "Associate",
    "AssociationState",
    "CookieAccepted",
    "CookieAcknowledged",
    "CookieStale",
    "Drained",
    "Effect",
    "Failed",
    "GuardExpired",
    "InitAckAccepted",
    "ShutdownAckReceived",
    "ShutdownCompleteReceived",
    "ShutdownReceived",
    "ShutdownRequested",
]


class AssociationState(enum.Enum):
    CLOSED = "closed"
    COOKIE_WAIT = "cookie_wait"
    COOKIE_ECHOED = "cookie_echoed"
    ESTABLISHED = "established"
    SHUTDOWN_PENDING = "shutdown_pending"
    SHUTDOWN_SENT = "shutdown_sent"
    SHUTDOWN_RECEIVED = "shutdown_received"
    SHUTDOWN_ACK_SENT = "shutdown_ack_sent"
    DEAD = "dead"


class Effect(enum.Enum):
    SEND_INIT = "send_init"
    SEND_COOKIE_ECHO = "send_cookie_echo"
    SEND_COOKIE_ACK = "send_cookie_ack"
    ESTABLISH = "establish"
    SEND_SHUTDOWN = "send_shutdown"
    SEND_SHUTDOWN_ACK = "send_shutdown_ack"
    SEND_SHUTDOWN_COMPLETE = "send_shutdown_complete"
    BURY = "bury"


@dataclass(frozen=True, slots=True)
class Associate:
    """We are to open."""


@dataclass(frozen=True, slots=True)
class InitAckAccepted:
    """The peer answered our INIT with a cookie."""


@dataclass(frozen=True, slots=True)
class CookieAccepted:
    """The peer brought back a cookie of ours that is genuine, fresh and of this association."""


@dataclass(frozen=True, slots=True)
class CookieAcknowledged:
    pass


@dataclass(frozen=True, slots=True)
class CookieStale:
    """The peer says that its cookie had expired when we brought it back."""


@dataclass(frozen=True, slots=True)
class ShutdownRequested:
    """We are to close."""


@dataclass(frozen=True, slots=True)
class Drained:
    """Everything queued was sent and acknowledged."""


@dataclass(frozen=True, slots=True)
class ShutdownReceived:
    pass


@dataclass(frozen=True, slots=True)
class ShutdownAckReceived:
    pass


@dataclass(frozen=True, slots=True)
class ShutdownCompleteReceived:
    pass


@dataclass(frozen=True, slots=True)
class Aborted:
    """By an ABORT of the peer."""


@dataclass(frozen=True, slots=True)
class Failed:
    """By ourselves: an abort, a violation of the peer, too many retransmissions."""


@dataclass(frozen=True, slots=True)
class GuardExpired:
    """T5: the shutdown took too long."""


_S = AssociationState
_E = Effect
_IGNORE = Cell.IGNORE
_ILLEGAL = Cell.ILLEGAL
_DEAD = to(_S.DEAD, _E.BURY)
_COOKIE = to(_S.ESTABLISHED, _E.SEND_COOKIE_ACK, _E.ESTABLISH)
_COMPLETE = to(_S.DEAD, _E.SEND_SHUTDOWN_COMPLETE, _E.BURY)
_ACK = to(_S.SHUTDOWN_ACK_SENT, _E.SEND_SHUTDOWN_ACK)
_GUARD = Deadline("shutdown_guard", GuardExpired)

# fmt: off
REGION = Region(
    name="association",
    initial=_S.CLOSED,
    events=(
        Associate, InitAckAccepted, CookieAccepted, CookieAcknowledged, CookieStale,
        ShutdownRequested, Drained, ShutdownReceived, ShutdownAckReceived, ShutdownCompleteReceived,
        Aborted, Failed, GuardExpired,
    ),
    rows={
        _S.CLOSED: (
            to(_S.COOKIE_WAIT, _E.SEND_INIT), _IGNORE, _COOKIE, _IGNORE, _IGNORE,
            _DEAD, _ILLEGAL, _IGNORE, _IGNORE, _IGNORE,
            _IGNORE, _DEAD, _ILLEGAL,
        ),
        _S.COOKIE_WAIT: (
            _IGNORE, to(_S.COOKIE_ECHOED, _E.SEND_COOKIE_ECHO), _COOKIE, _IGNORE, _IGNORE,
            _DEAD, _ILLEGAL, _IGNORE, _IGNORE, _IGNORE,
            _DEAD, _DEAD, _ILLEGAL,
        ),
        _S.COOKIE_ECHOED: (
            _IGNORE, _IGNORE, _COOKIE, to(_S.ESTABLISHED, _E.ESTABLISH), to(_S.COOKIE_WAIT, _E.SEND_INIT),
            _DEAD, _ILLEGAL, _IGNORE, _IGNORE, _IGNORE,
            _DEAD, _DEAD, _ILLEGAL,
        ),
        _S.ESTABLISHED: (
            _IGNORE, _IGNORE, to(_S.ESTABLISHED, _E.SEND_COOKIE_ACK), _IGNORE, _IGNORE,
            to(_S.SHUTDOWN_PENDING), _IGNORE, to(_S.SHUTDOWN_RECEIVED), _IGNORE, _IGNORE,
            _DEAD, _DEAD, _ILLEGAL,
        ),
        _S.SHUTDOWN_PENDING: (
            _IGNORE, _IGNORE, to(_S.SHUTDOWN_PENDING, _E.SEND_COOKIE_ACK), _IGNORE, _IGNORE,
            _IGNORE, to(_S.SHUTDOWN_SENT, _E.SEND_SHUTDOWN), to(_S.SHUTDOWN_RECEIVED), _IGNORE, _IGNORE,
            _DEAD, _DEAD, _DEAD,
        ),
        _S.SHUTDOWN_SENT: (
            _IGNORE, _IGNORE, _IGNORE, _IGNORE, _IGNORE,
            _IGNORE, _IGNORE, _ACK, _COMPLETE, _IGNORE,
            _DEAD, _DEAD, _DEAD,
        ),
        _S.SHUTDOWN_RECEIVED: (
            _IGNORE, _IGNORE, _IGNORE, _IGNORE, _IGNORE,
            _IGNORE, _ACK, _IGNORE, _IGNORE, _IGNORE,
            _DEAD, _DEAD, _DEAD,
        ),
        _S.SHUTDOWN_ACK_SENT: (
            _IGNORE, _IGNORE, _IGNORE, _IGNORE, _IGNORE,
            _IGNORE, _IGNORE, _ACK, _COMPLETE, _DEAD,
            _DEAD, _DEAD, _DEAD,
        ),
        _S.DEAD: (
            _IGNORE, _IGNORE, _IGNORE, _IGNORE, _IGNORE,
            _IGNORE, _IGNORE, _IGNORE, _IGNORE, _IGNORE,
            _IGNORE, _IGNORE, _IGNORE,
        ),
    },
    deadlines={
        _S.SHUTDOWN_PENDING: _GUARD,
        _S.SHUTDOWN_SENT: _GUARD,
        _S.SHUTDOWN_RECEIVED: _GUARD,
        _S.SHUTDOWN_ACK_SENT: _GUARD,
    },
)
# fmt: on

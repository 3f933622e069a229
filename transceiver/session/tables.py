"""The session state machine as tables (architecture §4). Everything that moves a session is in this file.

Three regions move in parallel, because setup must be fast: the backend opens while ICE and DTLS run.

transport  WAITING → HANDSHAKING → SECURE ⇄ SUSPECT → GONE
backend    CONNECTING ⇄ BACKOFF, ATTACHED → GONE
life       STARTING → LIVE → DRAINING → CLOSING → CLOSED

Joint rules, applied to a fixed point after each event, couple them: secure and attached make a call live; a call whose
transport or backend is gone closes; once it closes, both are gone. `Machine.fire` alone writes a state. The tests
explore every joint state that can be reached; the drawings under docs/generated are made from these tables.
"""

# ruff: noqa: E501  (a table row is one line)

from __future__ import annotations

import enum
from dataclasses import dataclass

from protocol.fsm import Cell, Deadline, Joint, Machine, Region, to

__all__ = [
    "BACKEND",
    "EVENTS",
    "JOINTS",
    "LIFE",
    "REGIONS",
    "TRANSPORT",
    "Backend",
    "BackendEnded",
    "BackendFailed",
    "BackendReady",
    "CloseRequested",
    "ConsentLate",
    "DrainRequested",
    "DtlsEstablished",
    "Effect",
    "Flushed",
    "IceConnected",
    "Life",
    "PeerClosed",
    "RetryDue",
    "Transport",
    "TransportFailed",
    "new_session_machine",
]

X, _ = Cell.ILLEGAL, Cell.IGNORE


class Transport(enum.Enum):
    WAITING = "answer sent, no authenticated check yet"
    HANDSHAKING = "a path is proven, DTLS in progress"
    SECURE = "SRTP keys installed, consent fresh"
    SUSPECT = "consent late, media paused"
    GONE = "no path, or the peer left"


class Backend(enum.Enum):
    CONNECTING = "the call is being offered to an agent"
    BACKOFF = "waiting to offer it again"
    ATTACHED = "an agent has taken the call"
    GONE = "the agent ended the call or gave up"


class Life(enum.Enum):
    STARTING = "transport and backend come up in parallel"
    LIVE = "media flows"
    DRAINING = "finish; the process is going away"
    CLOSING = "goodbyes are on their way"
    CLOSED = "released"


class Effect(enum.Enum):
    START_DTLS = "process DTLS from the proven path"
    INSTALL_KEYS = "the SRTP keys are in use from now on"
    RETARGET = "answer through the selected path"
    PAUSE_MEDIA = "stop sending media"
    RESUME_MEDIA = "send media again"
    OPEN_BACKEND = "offer the call to an agent again"
    START_MEDIA = "let audio and messages flow both ways"
    ANNOUNCE_DRAIN = "tell the client that the process is going away"
    SEND_GOODBYES = "tell the client and the agent why the call ends"
    RELEASE = "forget the call"


@dataclass(frozen=True, slots=True)
class IceConnected:
    """The first path was proven, another one took over, or consent came back."""


@dataclass(frozen=True, slots=True)
class DtlsEstablished:
    """The handshake is complete and the peer's fingerprint is the one of its offer."""


@dataclass(frozen=True, slots=True)
class ConsentLate:
    """No valid check came for a while (RFC 7675)."""


@dataclass(frozen=True, slots=True)
class PeerClosed:
    """The peer said goodbye."""


@dataclass(frozen=True, slots=True)
class TransportFailed:
    """The transport is beyond repair, or a deadline of the transport passed."""


@dataclass(frozen=True, slots=True)
class BackendReady:
    """An agent accepted the call."""


@dataclass(frozen=True, slots=True)
class BackendFailed:
    """No agent could be asked, none answered in time, or the link to it broke."""


@dataclass(frozen=True, slots=True)
class RetryDue:
    """Time to look for an agent again."""


@dataclass(frozen=True, slots=True)
class BackendEnded:
    """The agent ended or refused the call."""


@dataclass(frozen=True, slots=True)
class DrainRequested:
    """The process is going away once its calls have ended."""


@dataclass(frozen=True, slots=True)
class CloseRequested:
    """Somebody hung up, or a deadline of the call's life passed."""


@dataclass(frozen=True, slots=True)
class Flushed:
    """The goodbyes had time to arrive."""


T, B, L, E = Transport, Backend, Life, Effect

# fmt: off
TRANSPORT = Region("transport", T.WAITING,
    events=        (IceConnected,                                   DtlsEstablished,                ConsentLate,                    PeerClosed,   TransportFailed),
    rows={
    T.WAITING:     (to(T.HANDSHAKING, E.RETARGET, E.START_DTLS),    X,                              X,                              X,            to(T.GONE)),
    T.HANDSHAKING: (to(T.HANDSHAKING, E.RETARGET),                  to(T.SECURE, E.INSTALL_KEYS),   _,                              to(T.GONE),   to(T.GONE)),
    T.SECURE:      (to(T.SECURE, E.RETARGET),                       X,                              to(T.SUSPECT, E.PAUSE_MEDIA),   to(T.GONE),   to(T.GONE)),
    T.SUSPECT:     (to(T.SECURE, E.RETARGET, E.RESUME_MEDIA),       X,                              _,                              to(T.GONE),   to(T.GONE)),
    T.GONE:        (_,                                              _,                              _,                              _,            _),
    },
    deadlines={
    T.WAITING:     Deadline("ice_connect",    TransportFailed),
    T.HANDSHAKING: Deadline("dtls_handshake", TransportFailed),
    T.SUSPECT:     Deadline("consent_expiry", TransportFailed),
    })

BACKEND = Region("backend", B.CONNECTING,
    events=        (BackendReady,     BackendFailed,   RetryDue,                              BackendEnded),
    rows={
    B.CONNECTING:  (to(B.ATTACHED),   to(B.BACKOFF),   X,                                     to(B.GONE)),
    B.BACKOFF:     (X,                _,               to(B.CONNECTING, E.OPEN_BACKEND),      to(B.GONE)),
    B.ATTACHED:    (X,                to(B.BACKOFF),   X,                                     to(B.GONE)),
    B.GONE:        (_,                _,               _,                                     _),
    },
    deadlines={
    B.CONNECTING:  Deadline("backend_connect", BackendFailed),
    B.BACKOFF:     Deadline("backend_retry",   RetryDue),
    })

LIFE = Region("life", L.STARTING,
    events=        (DrainRequested,                       CloseRequested,                     Flushed),
    rows={
    L.STARTING:    (to(L.CLOSING, E.SEND_GOODBYES),       to(L.CLOSING, E.SEND_GOODBYES),     X),
    L.LIVE:        (to(L.DRAINING, E.ANNOUNCE_DRAIN),     to(L.CLOSING, E.SEND_GOODBYES),     X),
    L.DRAINING:    (_,                                    to(L.CLOSING, E.SEND_GOODBYES),     X),
    L.CLOSING:     (_,                                    _,                                  to(L.CLOSED, E.RELEASE)),
    L.CLOSED:      (_,                                    _,                                  _),
    },
    deadlines={
    L.STARTING:    Deadline("setup",       CloseRequested),
    L.LIVE:        Deadline("max_session", CloseRequested),
    L.DRAINING:    Deadline("drain",       CloseRequested),
    L.CLOSING:     Deadline("linger",      Flushed),
    })
# fmt: on

REGIONS = (TRANSPORT, BACKEND, LIFE)
EVENTS = tuple(event for region in REGIONS for event in region.events)

OPEN = frozenset({L.STARTING, L.LIVE, L.DRAINING})
ENDING = frozenset({L.CLOSING, L.CLOSED})

JOINTS = (
    Joint((frozenset({L.STARTING}), frozenset({T.SECURE}), frozenset({B.ATTACHED})), to(L.LIVE, E.START_MEDIA)),
    Joint((OPEN, frozenset({T.GONE})), to(L.CLOSING, E.SEND_GOODBYES)),
    Joint((OPEN, frozenset({B.GONE})), to(L.CLOSING, E.SEND_GOODBYES)),
    # Once closing, the other regions have only one place to be.
    Joint((ENDING, frozenset(T) - {T.GONE}), to(T.GONE)),
    Joint((ENDING, frozenset(B) - {B.GONE}), to(B.GONE)),
)


def new_session_machine() -> Machine:
    return Machine(REGIONS, JOINTS)

"""What an ICE agent tells its owner, in order, through `poll()`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from protocol.address import Path

__all__ = ["ConsentLate", "ConsentRestored", "Failed", "IceOutput", "PathSelected", "RestartCompleted", "SendTo"]


@dataclass(frozen=True, slots=True)
class SendTo:
    """A datagram to send."""

    data: bytes
    path: Path


@dataclass(frozen=True, slots=True)
class PathSelected:
    """Send media along `path` from now on.

    Comes up to twice at the start: for the first path that is valid, with `nominated=False`, so that DTLS need not
    wait for the nomination (RFC 8445 §12.1 allows data on any valid pair before it), and for the nomination. Then
    once for every move.
    """

    path: Path
    nominated: bool = True


@dataclass(frozen=True, slots=True)
class RestartCompleted:
    """The new credentials have selected a path (told before, if it is another one); the old ones are good no more."""


@dataclass(frozen=True, slots=True)
class ConsentLate:
    """No valid STUN on the selected path for `consent_late` seconds: stop sending media (RFC 7675)."""


@dataclass(frozen=True, slots=True)
class ConsentRestored:
    """Valid STUN came again after `ConsentLate`."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The agent gave up and is dead: `no_valid_path` or `consent_expired`."""

    reason: str


IceOutput: TypeAlias = SendTo | PathSelected | RestartCompleted | ConsentLate | ConsentRestored | Failed

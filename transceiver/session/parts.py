"""What a session is put together from, and what it asks of the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from protocol.address import Path
from protocol.agentlink import CallClient
from protocol.peer import Peer
from protocol.sdp import Agreement
from transceiver.backends.base import Backend
from transceiver.config import Timeouts

if TYPE_CHECKING:
    from transceiver.session.session import Session

__all__ = ["Host", "SessionParts"]


class Host(Protocol):
    """The engine, as a session sees it."""

    def send(self, data: bytes, path: Path) -> None:
        """Queue a datagram for this turn."""

    def connected(self, session: Session) -> None:
        """The call is half-open no more."""

    def retire(self, session: Session) -> None:
        """ICE has restarted: forget the ufrags before the last one."""

    def release(self, session: Session) -> None:
        """Forget the call."""


@dataclass(frozen=True, slots=True)
class SessionParts:
    """What a session is put together from."""

    call_id: str
    ufrag: bytes
    peer: Peer
    agreement: Agreement
    session: bytes | None
    client: CallClient | None
    expires_at: int
    timeouts: Timeouts
    backend: Backend
    host: Host

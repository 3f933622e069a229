"""What signalling asks of the rest of the transceiver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from transceiver.signalling.permits import NOBODY, Permit
from transceiver.signalling.sideband import Controller

__all__ = ["CallRequest", "Calls", "CreatedCall", "TaggedAnswer"]


@dataclass(frozen=True, slots=True)
class CallRequest:
    """An offer as it came: the SDP undecoded, and so the session object of the OpenAI contract if there was one."""

    sdp: bytes
    session: bytes | None = None  # JSON text of an object; decoded it may take twenty times as much
    permit: Permit = NOBODY
    """Of whoever sent it."""
    channel: int | None = None
    """The stream id of a data channel that the client opens without asking (`?dcid=`); ours is `oai-events`."""


@dataclass(frozen=True, slots=True)
class CreatedCall:
    call_id: str
    answer: str
    etag: str
    """The entity tag of its ICE session, in quotes; a restart gives a new one (RFC 9725 §4.3.1)."""


@dataclass(frozen=True, slots=True)
class TaggedAnswer:
    """A description of ours, or a fragment of one, and the entity tag of the ICE session that it belongs to."""

    body: str
    etag: str


class Calls(Protocol):
    def create(self, request: CallRequest) -> CreatedCall:
        """Answer an offer. Raises SignallingError; it is ready for the first check before it returns."""

    def renegotiate(self, call_id: str, offer: bytes, if_match: str | None = None) -> TaggedAnswer | None:
        """Answer a further offer in a call; None if there is no such call. Raises SignallingError, and nothing changes."""

    def update_ice(self, call_id: str, if_match: str | None, fragment: bytes) -> TaggedAnswer | None:
        """The client trickles candidates (None), or restarts ICE. Raises SignallingError; then nothing has changed."""

    def hang_up(self, call_id: str) -> bool:
        """End a call; False if there is no such call."""

    def control(self, call_id: str, permit: Permit) -> Controller:
        """Attach a controller to a call. Raises SignallingError."""

    def info(self) -> dict[str, object]:
        """What `GET /v1/info` tells."""

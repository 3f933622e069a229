"""Why an offer is refused, in the words the caller of `POST /v1/realtime/calls` reads."""

from __future__ import annotations

from protocol.errors import DecodeError

__all__ = ["OfferRefused", "OfferUnsupported"]


class OfferRefused(DecodeError):
    """A description we cannot work with. `code` is stable and machine-readable (and the metric label), `message` is
    one English sentence for a person, `param` names the SDP line at fault. No text of the peer appears in them."""

    def __init__(self, code: str, message: str, param: str = "sdp") -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.param = param


class OfferUnsupported(OfferRefused):
    """The description is well formed and we understand it; what it asks for we cannot do."""

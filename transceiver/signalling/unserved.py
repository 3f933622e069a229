"""Places of the API that exist elsewhere and not here: each says so, and what to do instead."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from transceiver.signalling.errors import SignallingError

__all__ = ["unserved_routes"]

_METHODS = ["GET", "POST"]
_SIP = "This place is for calls that come by SIP. There are none here: a call is answered when it is placed."
_BETA = "The beta interface is not served here: POST /v1/realtime/client_secrets gives a secret and takes the session."
_TRANSCRIPTION = "Sessions that only transcribe are not served here."
_TRANSLATION = "Translation sessions are not served here."


def unserved_routes() -> list[Route]:
    """Below `/v1`."""
    return [
        *(
            Route(f"/realtime/calls/{{call_id}}/{verb}", _refuse(400, "sip_not_served", _SIP), methods=_METHODS)
            for verb in ("accept", "reject", "refer")
        ),
        Route("/realtime/sessions", _refuse(404, "beta_not_served", _BETA), methods=_METHODS),
        Route(
            "/realtime/transcription_sessions",
            _refuse(404, "transcription_not_served", _TRANSCRIPTION),
            methods=_METHODS,
        ),
        Route(
            "/realtime/translations/{rest:path}",
            _refuse(404, "translations_not_served", _TRANSLATION),
            methods=_METHODS,
        ),
    ]


def _refuse(status: int, code: str, message: str) -> Callable[[Request], Awaitable[Response]]:
    async def refuse(_: Request) -> Response:
        raise SignallingError(status, code, message)

    return refuse

"""`POST /v1/realtime/client_secrets`: from a body to a client secret."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from protocol.wire import Entropy
from transceiver.signalling.auth import Access
from transceiver.signalling.body import read_json
from transceiver.signalling.errors import SignallingError
from transceiver.signalling.sessions import check_session, effective_session

__all__ = ["create_client_secret"]

# Specification constants
ID_BYTES = 12


class _ExpiresAfter(msgspec.Struct):
    anchor: Literal["created_at"] = "created_at"
    seconds: Annotated[int, Meta(ge=10, le=7200)] = 600


class _Asked(msgspec.Struct):
    expires_after: _ExpiresAfter | None = None
    session: dict[str, Any] | None = None


async def create_client_secret(
    access: Access, request: Request, seconds: float, entropy: Entropy = os.urandom
) -> Response:
    """Raises SignallingError. `seconds` is how long the body may take."""
    permit = access.identify(request.headers)
    body = await read_json(request, seconds)
    try:
        asked = msgspec.json.decode(body or b"{}", type=_Asked)
        session = asked.session or {}
        settings = check_session(session)
        text = msgspec.json.encode(session) if session else None
        shown = msgspec.json.encode(effective_session(settings, f"sess_{entropy(ID_BYTES).hex()}"))
    except msgspec.ValidationError as error:
        param = "expires_after" if "$.expires_after" in str(error) else None
        raise SignallingError(400, "invalid_request", f"The body cannot be: {error}.", param=param) from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise SignallingError(400, "invalid_json", f"The body is not JSON: {error}.") from None
    value, expires_at = access.issue(permit, text, (asked.expires_after or _ExpiresAfter()).seconds)
    content = msgspec.json.encode({"value": value, "expires_at": expires_at, "session": msgspec.Raw(shown)})
    return Response(content, headers={"Cache-Control": "no-store"}, media_type="application/json")

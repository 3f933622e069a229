"""From an HTTP request to a `CallRequest`, or to an ICE fragment, within bounds of size and time.

1. The Accept header must allow application/sdp (406).
2. The body is read piece by piece: over 64 KiB is 413, slower than the deadline 408.
3. By Content-Type it is taken apart: application/sdp, multipart/form-data (`sdp`, `session`) or JSON {sdp, session}.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, TypeAlias

import msgspec
import trio
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from protocol.sdp import FRAGMENT_TYPE
from service.http import REQUEST_BEGAN
from transceiver.signalling.calls import CallRequest
from transceiver.signalling.errors import SignallingError
from transceiver.signalling.sessions import check_session

__all__ = [
    "ACCEPT_POST",
    "SDP_TYPE",
    "read_body_in_time",
    "read_call_request",
    "read_fragment",
    "read_further_offer",
    "read_json",
]

# Implementation constants
MAX_BODY_BYTES = 64 * 1024
# Of a body that is too large we read a little more, unkept: a connection closed under a client that still writes is
# reset, and the client would never see its 413.
MAX_DISCARDED_BYTES = 1024 * 1024
MAX_PARTS = 8
SDP_TYPE = "application/sdp"


class _JsonOffer(msgspec.Struct):
    sdp: str
    session: msgspec.Raw = msgspec.Raw(b"null")


async def read_call_request(request: Request, seconds: float) -> CallRequest:
    """The offer of a new call. Raises SignallingError."""
    return await _read_offer(request, seconds, _READERS)


async def read_further_offer(request: Request, seconds: float) -> bytes:
    """An offer in a call that there is: SDP alone, the session was agreed. Raises SignallingError."""
    return (await _read_offer(request, seconds, {SDP_TYPE: _from_sdp})).sdp


async def _read_offer(request: Request, seconds: float, readers: Mapping[str, _Reader]) -> CallRequest:
    if not _accepts_sdp(request.headers.get("accept", "")):
        raise SignallingError(406, "not_acceptable", "The answer is application/sdp, which Accept does not allow.")
    read = readers.get(_content_type(request))
    if read is None:
        raise SignallingError(415, "unsupported_media_type", f"Send the offer as {' or '.join(readers)}, unencoded.")
    return await read(request, await read_body_in_time(request, seconds))


async def read_fragment(request: Request, seconds: float) -> bytes:
    """The body of a request that trickles or restarts ICE. Raises SignallingError."""
    if _content_type(request) != FRAGMENT_TYPE:
        message = f"A call is changed by {FRAGMENT_TYPE}, unencoded."
        raise SignallingError(415, "unsupported_media_type", message, accept_patch=FRAGMENT_TYPE)
    return await read_body_in_time(request, seconds)


async def read_json(request: Request, seconds: float) -> bytes:
    """A body in JSON, not decoded; there may be none. Raises SignallingError."""
    body = await read_body_in_time(request, seconds)
    if body and _content_type(request) != "application/json":
        raise SignallingError(415, "unsupported_media_type", "Send the body as application/json, unencoded.")
    return body


def _content_type(request: Request) -> str:
    """Without its parameters; empty if the body is encoded besides."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        return ""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _accepts_sdp(accept: str) -> bool:
    # Quality values other than 0 do not matter with one representation (RFC 9110 §12.5.1).
    if not accept.strip():
        return True
    for entry in accept.split(","):
        media, *parameters = (part.strip().lower() for part in entry.split(";"))
        refused = any(parameter.replace(" ", "") in ("q=0", "q=0.0", "q=0.00", "q=0.000") for parameter in parameters)
        if media in (SDP_TYPE, "application/*", "*/*") and not refused:
            return True
    return False


async def read_body_in_time(request: Request, seconds: float) -> bytes:
    """Whatever it is, within the bounds. Raises SignallingError."""
    if "content-length" in request.headers and "transfer-encoding" in request.headers:
        raise SignallingError(400, "ambiguous_length", "Content-Length and Transfer-Encoding exclude each other.")
    began = request.scope.get("state", {}).get(REQUEST_BEGAN)  # headers that took their time leave less for the body
    with trio.move_on_at((trio.current_time() if began is None else began) + seconds):
        return await _read_body(request)
    raise SignallingError(408, "request_timeout", f"The request did not arrive within {seconds:g} seconds.")


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    excess = 0
    async with aclosing(request.stream()) as stream:
        async for chunk in stream:
            if not excess and len(body) + len(chunk) <= MAX_BODY_BYTES:
                body += chunk
                continue
            excess += len(chunk)
            if excess > MAX_DISCARDED_BYTES:
                break
    if excess:
        raise SignallingError(413, "payload_too_large", f"The body is larger than {MAX_BODY_BYTES // 1024} KiB.")
    return bytes(body)


async def _from_sdp(_: Request, body: bytes) -> CallRequest:
    return CallRequest(body)


async def _from_json(_: Request, body: bytes) -> CallRequest:
    try:
        offer = msgspec.json.decode(body, type=_JsonOffer)
        session = _checked_session(offer.session)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise SignallingError(400, "invalid_json", f"The body is not {{sdp, session}} in JSON: {error}") from None
    return CallRequest(offer.sdp.encode("utf-8", "surrogatepass"), session)


def _checked_session(text: bytes | msgspec.Raw) -> bytes | None:
    """The text itself, if it is that of a session that can be; None for null. Raises SignallingError for one that cannot."""
    session = msgspec.json.decode(text, type=dict[str, Any] | None)
    if session is None:
        return None
    check_session(session)
    return bytes(text)


async def _from_form(request: Request, body: bytes) -> CallRequest:
    async def replay() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        async with aclosing(replay()) as stream:
            form = await MultiPartParser(
                request.headers, stream, max_files=MAX_PARTS, max_fields=MAX_PARTS, max_part_size=MAX_BODY_BYTES
            ).parse()
    except (MultiPartException, UnicodeError, KeyError, ValueError) as error:
        raise SignallingError(400, "invalid_form", f"The body is not multipart/form-data: {error}") from None
    try:
        sdp = await _field(form, "sdp")
        session = await _field(form, "session")
    finally:
        await form.close()
    if sdp is None:
        raise SignallingError(400, "missing_offer", "The form has no field `sdp`.", param="sdp")
    if not session:
        return CallRequest(sdp)
    try:
        return CallRequest(sdp, _checked_session(session))
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise SignallingError(
            400, "invalid_session", f"The field `session` is not a JSON object: {error}", param="session"
        ) from None


async def _field(form: FormData, name: str) -> bytes | None:
    """A field, whether it was sent plainly or as a file."""
    value = form.get(name)
    if isinstance(value, UploadFile):
        return await value.read()
    return None if value is None else value.encode()


_Reader: TypeAlias = Callable[[Request, bytes], Awaitable[CallRequest]]
_READERS: dict[str, _Reader] = {SDP_TYPE: _from_sdp, "multipart/form-data": _from_form, "application/json": _from_json}
ACCEPT_POST = ", ".join(_READERS)

"""The opening handshake of a WebSocket (RFC 6455 §4), over h11: one HTTP request, answered with 101 or refused."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence

import h11

from protocol.errors import DecodeError
from protocol.wire import Entropy

__all__ = ["ClientHandshake", "ServerHandshake"]

# Specification constants
KEY_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
KEY_BYTES = 16
VERSION = b"13"
SWITCHING, BAD_REQUEST, UPGRADE_REQUIRED = 101, 400, 426

Headers = Sequence[tuple[bytes, bytes]]


class ClientHandshake:
    """Send `request`, feed what comes to `decode_untrusted` until it gives something."""

    def __init__(self, host: str, target: str, entropy: Entropy) -> None:
        self._key = base64.b64encode(entropy(KEY_BYTES))
        self._http = h11.Connection(h11.CLIENT)
        self.request = self._http.send(
            h11.Request(
                method="GET",
                target=target,
                headers=[
                    ("Host", host),
                    ("Upgrade", "websocket"),
                    ("Connection", "Upgrade"),
                    ("Sec-WebSocket-Key", self._key.decode()),
                    ("Sec-WebSocket-Version", VERSION.decode()),
                ],
            )
        )

    def decode_untrusted(self, data: bytes) -> bytes | None:
        """None: more must come. Else the handshake is over, and these bytes behind it are the first of the frames.

        Raises DecodeError: websocket_no_http, websocket_refused (with the status), websocket_accept, websocket_extension.
        """
        event = _next_event_untrusted(self._http, data)
        if event is None:
            return None
        if not isinstance(event, h11.InformationalResponse) or event.status_code != SWITCHING:
            raise DecodeError("websocket_refused", str(getattr(event, "status_code", "")))
        headers = event.headers
        if not (_has_token(headers, b"upgrade", b"websocket") and _has_token(headers, b"connection", b"upgrade")):
            raise DecodeError("websocket_refused", "no upgrade")
        if _values(headers, b"sec-websocket-accept") != [_accept_token(self._key)]:
            raise DecodeError("websocket_accept")
        if _values(headers, b"sec-websocket-extensions") or _values(headers, b"sec-websocket-protocol"):
            raise DecodeError("websocket_extension")
        return self._http.trailing_data[0]


class ServerHandshake:
    """Feed `decode_untrusted` until it gives something; then send what `accept` or `reject` gives."""

    def __init__(self) -> None:
        self._http = h11.Connection(h11.SERVER)
        self._request: h11.Request | None = None

    def decode_untrusted(self, data: bytes) -> bool:
        """Whether the request is there. Raises DecodeError for what is no HTTP: websocket_no_http."""
        event = _next_event_untrusted(self._http, data)
        if event is None:
            return False
        if not isinstance(event, h11.Request) or not isinstance(_event_untrusted(self._http), h11.EndOfMessage):
            raise DecodeError("websocket_no_http")  # or one with a body
        self._request = event
        return True

    @property
    def headers(self) -> Headers:
        """Of the request; names are in lower case."""
        return self._request.headers if self._request is not None else ()

    @property
    def fault(self) -> int | None:
        """The status that refuses a request which asks for no WebSocket of this version (§4.2.1, §4.4); None if it does."""
        request, headers = self._request, self.headers
        if request is None or request.method != b"GET" or len(_values(headers, b"sec-websocket-key")) != 1:
            return BAD_REQUEST
        if not (_has_token(headers, b"upgrade", b"websocket") and _has_token(headers, b"connection", b"upgrade")):
            return BAD_REQUEST
        return None if _values(headers, b"sec-websocket-version") == [VERSION] else UPGRADE_REQUIRED

    def accept(self) -> tuple[bytes, bytes]:
        """The answer, and bytes that came behind the request: the first of the frames."""
        [key] = _values(self.headers, b"sec-websocket-key")
        headers = [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", _accept_token(key).decode()),
        ]
        # A client speaks on only once it has the answer; h11 holds what one has sent all the same.
        trailing = self._http.trailing_data[0]
        answer = self._http.send(h11.InformationalResponse(status_code=SWITCHING, headers=headers))
        return answer, trailing

    def reject(self, status: int) -> bytes:
        """A refusal, after which the connection is to be closed."""
        headers = [("Connection", "close"), ("Content-Length", "0")]
        if status == UPGRADE_REQUIRED:
            headers.append(("Sec-WebSocket-Version", VERSION.decode()))
        return self._http.send(h11.Response(status_code=status, headers=headers))


def _next_event_untrusted(http: h11.Connection, data: bytes) -> h11.Event | None:
    if not data:  # the end of the connection, too soon
        raise DecodeError("websocket_no_http")
    try:
        http.receive_data(data)
    except h11.RemoteProtocolError:
        raise DecodeError("websocket_no_http") from None
    return _event_untrusted(http)


def _event_untrusted(http: h11.Connection) -> h11.Event | None:
    try:
        event = http.next_event()
    except h11.RemoteProtocolError:
        raise DecodeError("websocket_no_http") from None
    return event if isinstance(event, h11.Event) else None


def _accept_token(key: bytes) -> bytes:
    return base64.b64encode(hashlib.sha1(key + KEY_GUID, usedforsecurity=False).digest())


def _values(headers: Headers, name: bytes) -> list[bytes]:
    return [value for known, value in headers if known == name]


def _has_token(headers: Headers, name: bytes, token: bytes) -> bool:
    return any(part.strip().lower() == token for value in _values(headers, name) for part in value.split(b","))

"""Pages that may use signalling, and the names it answers to: what a browser tells us unasked, and cannot lie about.

1. `Origin` is the page that asks. A page whose origin may not is refused where something would happen (POST, PATCH, DELETE,
   WebSockets); that it may not read our answers, CORS sees to. What is no browser sends none.
2. `Host` is the name by which we were found. With open access on loopback only names of loopback are good: a page of
   anybody's may have its own name lead to 127.0.0.1, and would then be of the same origin as we are (DNS rebinding).

| | origins by default | hosts |
|---|---|---|
| API keys | all | all |
| no keys, on loopback | its own, loopback | loopback, and those of `allow_origins` |
| `open_access` | its own, loopback | all |
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from transceiver.config import TransceiverConfig
from transceiver.signalling.errors import SignallingError, error_response

__all__ = ["Guard", "Origins"]

# Specification constants
ANY = "*"
PORTS = {"http": 80, "https": 443}
ACTING = frozenset({"POST", "PATCH", "DELETE", "PUT"})


class Origins:
    """`allowed` are origins or `*`; None: our own and loopback's. `hosts`: names besides loopback's; None: any."""

    def __init__(self, allowed: frozenset[str] | None = frozenset({ANY}), hosts: frozenset[str] | None = None) -> None:
        self._allowed = allowed
        self._hosts = hosts

    @classmethod
    def configured(cls, config: TransceiverConfig) -> Origins:
        listed = frozenset(config.allow_origins)
        allowed = listed or (frozenset({ANY}) if config.api_keys else None)
        if config.api_keys or config.open_access or ANY in listed:
            return cls(allowed)
        return cls(allowed, frozenset(urlsplit(origin).hostname or "" for origin in listed))

    @property
    def allows_all(self) -> bool:
        return self._allowed is not None and ANY in self._allowed

    def allows(self, origin: str) -> bool:
        """Pages of this origin, wherever they found us."""
        if self._allowed is None:
            parts = _parts(origin)
            return parts is not None and _is_loopback(parts[1])
        return self.allows_all or origin in self._allowed

    def check(self, method: str, host: str | None, origin: str | None) -> None:
        """Of a request, `method` "" for a WebSocket's. Raises SignallingError."""
        if host is not None and self._hosts is not None and not self._answers_to(host):
            message = (
                "Without API keys this server answers on loopback to names of loopback alone: name the origin of its proxy in"
                " transceiver.allow_origins, or set transceiver.open_access."
            )
            raise SignallingError(403, "host_not_allowed", message, param="Host")
        if origin is None or (method and method not in ACTING):
            return
        if not self.allows(origin) and not _is_own(origin, host):
            message = "Pages of this origin may not call: transceiver.allow_origins says which may."
            raise SignallingError(403, "origin_not_allowed", message, param="Origin")

    def _answers_to(self, host: str) -> bool:
        name = _hostname(host)
        return _is_loopback(name) or name in (self._hosts or ())


class Guard:
    """Middleware: around all else."""

    def __init__(self, app: ASGIApp, origins: Origins) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            headers = Headers(scope=scope)
            try:
                self._origins.check(scope.get("method", ""), headers.get("host"), headers.get("origin"))
            except SignallingError as error:
                response = error_response(error)
                if scope["type"] == "websocket":
                    await WebSocket(scope, receive, send).send_denial_response(response)
                else:
                    await response(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _is_own(origin: str, host: str | None) -> bool:
    """A page that we served ourselves, perhaps through a proxy, which may speak TLS for us."""
    parts = _parts(origin)
    if parts is None or host is None:
        return False
    scheme, name, port = parts
    return _parts(f"{scheme}://{host}") == (scheme, name, port)


def _parts(origin: str) -> tuple[str, str, int] | None:
    """Scheme, name and port; None: it is no page of HTTP (`null`, too)."""
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in PORTS or not parts.hostname or parts.username is not None:
        return None
    return parts.scheme, parts.hostname, PORTS[parts.scheme] if port is None else port


def _hostname(host: str) -> str:
    """Of a Host header; empty if it is none."""
    parts = _parts(f"http://{host}")
    return parts[1] if parts is not None else ""


def _is_loopback(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False

"""The `[agent.upstream]` section, and what a connection needs of it: where, and with which key."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, quote, urlsplit

import msgspec

__all__ = ["Access", "AccessError", "UpstreamConfig", "find_access"]

# Implementation constants
MAX_KEY_LETTERS = 4096
_PORTS = {"ws": 80, "wss": 443}


class UpstreamConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The agent `upstream`: calls are bridged to a Realtime service that is reached by WebSocket."""

    url: str = ""
    """`wss://api.openai.com/v1/realtime`, or another service's; `ws://` without TLS."""
    model: str = ""
    """Goes into the URL as `?model=`; empty: as `url` says."""
    key_variable: str = ""
    """The name of the environment variable that holds the API key (`OPENAI_API_KEY`); it goes to `url` and nowhere else."""
    key_file: str = ""
    """Or the file that holds it."""
    connect_seconds: float = 10.0
    """For DNS, TCP, TLS, the upgrade and `session.created` together."""
    give_up_seconds: float = 60.0
    """After so long without a connection that lasts, a call ends."""
    write_seconds: float = 10.0
    """A service that reads nothing for so long has stalled."""
    ping_seconds: float = 20.0
    """Between pings; a service that then says nothing at all for as long again has stalled."""
    max_event_bytes: int = 4 * 1024 * 1024
    """Of one event of the service (a minute of sound in one piece); a larger one ends the connection."""
    max_sound_bytes: int = 10 * 1024 * 1024
    """Of one call's sound that waits to be heard (3 ½ minutes); beyond, the service waits."""

    def __post_init__(self) -> None:
        if self.url:
            _check_url(self.url)
        if self.key_variable and self.key_file:
            raise ValueError("key_file: there is a key_variable too; only one of them can be right")
        for key in ("connect_seconds", "give_up_seconds", "write_seconds", "ping_seconds"):
            if not 0.1 <= getattr(self, key) <= 3600:
                raise ValueError(f"{key}: must be between 0.1 and 3600")
        for key in ("max_event_bytes", "max_sound_bytes"):
            if not 64 * 1024 <= getattr(self, key) <= 1 << 30:
                raise ValueError(f"{key}: must be between 65536 and {1 << 30}")


class AccessError(Exception):
    """One sentence; `key` is the key of the section that is to blame."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


class Access:
    """Where the service is, and the headers that open it. It has no words for the key: none can get into a log."""

    __slots__ = ("headers", "host", "name", "port", "target", "tls")

    def __init__(self, url: str, model: str, key: str) -> None:
        parts = urlsplit(url)
        self.tls = parts.scheme == "wss"
        self.name = parts.hostname or ""
        """What to connect to, and what its certificate must say."""
        self.port = parts.port or _PORTS[parts.scheme]
        self.host = parts.netloc
        """The `Host` header."""
        query = parts.query
        if model and "model" not in dict(parse_qsl(query, keep_blank_values=True)):
            query = f"{query}&" * bool(query) + f"model={quote(model, safe='')}"
        self.target = (parts.path or "/") + f"?{query}" * bool(query)
        self.headers: tuple[tuple[bytes, bytes], ...] = ((b"Authorization", b"Bearer " + key.encode()),) if key else ()


def find_access(config: UpstreamConfig, environ: Mapping[str, str]) -> Access:
    """Raises AccessError."""
    if not config.url:
        raise AccessError(
            "url", "must name the service, as in wss://api.openai.com/v1/realtime (docs/agent.md says how)"
        )
    key = _find_key(config, environ)
    parts = urlsplit(config.url)
    if key and parts.scheme == "ws" and not _is_loopback(parts.hostname or ""):
        raise AccessError("url", "must begin with wss://: by ws:// everybody on the way could read the key")
    return Access(config.url, config.model, key)


def _check_url(url: str) -> None:
    try:
        parts: SplitResult = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("url: is none, or its port is none") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("url: must not hold a password; key_variable or key_file tell where the key is")
    if parts.scheme not in _PORTS or not parts.hostname or port == 0:
        raise ValueError(f"url: must be like wss://host/v1/realtime, not {url!r}")
    if parts.fragment or not url.isascii() or any(letter.isspace() or not letter.isprintable() for letter in url):
        raise ValueError("url: must have no fragment, no spaces and only ASCII letters")


def _find_key(config: UpstreamConfig, environ: Mapping[str, str]) -> str:
    if config.key_variable:
        place, key = "key_variable", environ.get(config.key_variable, "").strip()
        if not key:
            raise AccessError(place, f"the environment has no {config.key_variable}, or an empty one")
    elif config.key_file:
        place = "key_file"
        try:
            key = Path(config.key_file).read_text("ascii").strip()
        except OSError as error:
            raise AccessError(place, f"{config.key_file}: {error.strerror or 'cannot be read'}") from None
        except UnicodeDecodeError:
            raise AccessError(place, f"{config.key_file}: holds no key") from None
        if not key:
            raise AccessError(place, f"{config.key_file}: is empty")
    else:
        return ""
    if len(key) > MAX_KEY_LETTERS or not all("!" <= letter <= "~" for letter in key):
        raise AccessError(place, "what it names is no key: one word of ASCII letters")
    return key


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

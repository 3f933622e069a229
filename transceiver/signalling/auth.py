"""Who asks: the credentials of a request, looked at in one place for HTTP and WebSocket alike.

1. A credential is `Authorization: Bearer …`, or for WebSockets of browsers, which cannot send that header, the subprotocol
   `openai-insecure-api-key.…`.
2. It is an API key (api_keys.py), or a client secret that was made with one (client_secrets.py) and carries a session.
3. `identify` says who it is, as a `Permit`; what the permit's holder has at once, `usage` counts.
4. With open access anything passes, but a client secret of ours that is no good: its session would silently be missing.
"""

from __future__ import annotations

import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import trio

from protocol.errors import DecodeError
from protocol.routing.token import parse_secret
from protocol.wire import Entropy
from service.config import ConfigError
from service.logs import get_logger
from transceiver.config import TransceiverConfig
from transceiver.signalling.api_keys import ApiKey, KeyFile
from transceiver.signalling.client_secrets import MAX_SESSION_BYTES, PREFIX, ClientSecrets, SecretContents
from transceiver.signalling.errors import SignallingError
from transceiver.signalling.permits import Permit
from transceiver.signalling.usage import Usage

__all__ = ["Access", "new_secret_key"]

log = get_logger()

# Specification constants
SAFETY_IDENTIFIER = "openai-safety-identifier"
SUBPROTOCOL = "openai-insecure-api-key."

# Implementation constants
MAX_IDENTIFIER = 256

_REFUSALS = {
    "secret_expired": ("expired_client_secret", "The client secret has expired: ask for a new one."),
    "secret_forged": ("invalid_client_secret", "This is no client secret of ours, or not the whole of it."),
    "secret_malformed": ("invalid_client_secret", "This is no client secret of ours, or not the whole of it."),
}


def new_secret_key() -> str:
    """For `transceiver.secret_key`, where nobody has set it."""
    return secrets.token_hex(32)


class Access:
    """`keys` is None with open access; `secret_key` seals client secrets."""

    def __init__(
        self,
        keys: KeyFile | None = None,
        *,
        secret_key: bytes | None = None,
        wall_time: Callable[[], float] = time.time,
        clock: Callable[[], float] = trio.current_time,
        entropy: Entropy = os.urandom,
    ) -> None:
        self.keys = keys
        self.usage = Usage(clock)
        self.refused: Counter[str] = Counter()  # credentials, by code
        self._secrets = ClientSecrets(secret_key or bytes.fromhex(new_secret_key()), entropy)
        self._wall_time = wall_time

    @classmethod
    def configured(cls, config: TransceiverConfig, wall_time: Callable[[], float] = time.time) -> Access:
        """Raises ConfigError."""
        keys: KeyFile | None = None
        if config.api_keys:
            try:
                keys = KeyFile(Path(config.api_keys))
            except OSError as error:
                raise ConfigError("transceiver.api_keys", f"{config.api_keys}: {error.strerror}") from None
            except ValueError as error:
                raise ConfigError("transceiver.api_keys", f"{config.api_keys}: {error}") from None
        key = parse_secret(config.secret_key, "transceiver.secret_key") if config.secret_key else None
        return cls(keys, secret_key=key, wall_time=wall_time)

    def log_what_holds(self, config: TransceiverConfig) -> None:
        """Once, at the start."""
        if self.keys is None:
            tell = log.warning if config.open_access else log.info
            reason = "open_access is set" if config.open_access else "signalling listens on loopback alone"
            tell("open access: whoever reaches signalling may place calls", http=config.http, because=reason)
        else:
            log.info("API keys are asked for", keys=len(self.keys.keys), file=config.api_keys)
        if not config.secret_key:
            log.info(
                "client secrets end with this process and are good for no other: transceiver.secret_key is not set"
            )

    def identify(self, headers: Mapping[str, str], subprotocols: Iterable[str] = ()) -> Permit:
        """Raises SignallingError: 401 without good credentials, 400 for an identifier that cannot be. `headers` by names in
        lower case, or whatever their case."""
        try:
            return self._identify(headers, subprotocols)
        except SignallingError as error:
            self.refused[error.code] += 1
            raise

    def issue(self, permit: Permit, session: bytes | None, seconds: int) -> tuple[str, int]:
        """A new client secret and when it expires, in seconds since 1970. `session` is the JSON text of an object.
        Raises SignallingError."""
        if permit.by_secret:
            message = "A client secret makes calls, not other client secrets: use an API key."
            raise SignallingError(403, "api_key_required", message, param="Authorization")
        if session is not None and len(session) > MAX_SESSION_BYTES:
            message = (
                f"The session has {len(session)} bytes. A client secret carries {MAX_SESSION_BYTES} at most:"
                " send the rest by session.update, when the call is there."
            )
            raise SignallingError(400, "session_too_large", message, param="session")
        expires_at = int(self._wall_time()) + seconds
        contents = SecretContents(expires_at, permit.fingerprint, permit.safety_identifier, session)
        return self._secrets.seal(contents), expires_at

    async def run(self) -> None:
        """Keep up with the file of keys, until cancelled."""
        if self.keys is not None:
            await self.keys.watch()

    def _identify(self, headers: Mapping[str, str], subprotocols: Iterable[str]) -> Permit:
        credential = _credential(headers, subprotocols)
        identifier = _safety_identifier(headers)
        if credential.startswith(PREFIX):
            return self._by_secret(credential, identifier)
        if self.keys is None:
            return Permit(safety_identifier=identifier)
        if not credential:
            raise _unauthorized("missing_api_key", "An API key is needed: Authorization: Bearer …")
        key = self.keys.keys.find(credential)
        if key is None:
            raise _unauthorized("invalid_api_key", "The API key is not known here.")
        return _permit(key, identifier)

    def _by_secret(self, secret: str, identifier: str) -> Permit:
        try:
            contents = self._secrets.open_untrusted(secret, self._wall_time())
        except DecodeError as error:
            raise _unauthorized(*_REFUSALS[error.reason]) from None
        identifier = contents.safety_identifier or identifier
        if self.keys is None:
            return Permit(safety_identifier=identifier, by_secret=True, session=contents.session)
        key = self.keys.keys.find_by_fingerprint(contents.fingerprint)
        if key is None:
            raise _unauthorized("invalid_client_secret", "The API key of this client secret is no longer good.")
        return _permit(key, identifier, by_secret=True, session=contents.session)


def _permit(key: ApiKey, identifier: str, *, by_secret: bool = False, session: bytes | None = None) -> Permit:
    return Permit(key.name, identifier, by_secret, session, key.calls, key.per_minute, key.fingerprint)


def _credential(headers: Mapping[str, str], subprotocols: Iterable[str]) -> str:
    """Empty if there is none."""
    scheme, _, token = headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return next((word.removeprefix(SUBPROTOCOL) for word in subprotocols if word.startswith(SUBPROTOCOL)), "")


def _safety_identifier(headers: Mapping[str, str]) -> str:
    identifier = headers.get(SAFETY_IDENTIFIER, "").strip()
    if len(identifier) > MAX_IDENTIFIER or not (identifier.isascii() and identifier.isprintable()):
        message = f"OpenAI-Safety-Identifier has {MAX_IDENTIFIER} printable ASCII characters at most."
        raise SignallingError(400, "invalid_safety_identifier", message, param="OpenAI-Safety-Identifier")
    return identifier


def _unauthorized(code: str, message: str) -> SignallingError:
    return SignallingError(401, code, message, param="Authorization")

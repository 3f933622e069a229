"""What a key exchange group is to us: a name, a number, and how to begin an exchange."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from protocol.wire import Entropy

__all__ = ["Group", "KeyExchange"]


class KeyExchange(Protocol):
    """One side's ephemeral key. Used once."""

    @property
    def public(self) -> bytes: ...

    def shared_untrusted(self, peer_public: bytes) -> bytes:
        """The shared secret. Raises DecodeError on a point that is not on the curve or leads to a trivial secret."""
        ...


@dataclass(frozen=True, slots=True)
class Group:
    code: int
    name: str  # IANA spelling
    begin: Callable[[Entropy], KeyExchange]

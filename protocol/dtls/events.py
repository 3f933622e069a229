"""What a DTLS endpoint gives out: datagrams to send and events to act on, in one ordered list."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

__all__ = ["ApplicationData", "Closed", "Connected", "Datagram", "Output", "Role", "SrtpKeys"]


class Role(Enum):
    SERVER = "server"
    CLIENT = "client"


@dataclass(frozen=True, slots=True)
class SrtpKeys:
    """Key and salt, one after the other, of what we send (`local`) and of what we receive (`remote`)."""

    profile: int
    local: bytes = field(repr=False)
    remote: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Datagram:
    data: bytes


@dataclass(frozen=True, slots=True)
class Connected:
    srtp: SrtpKeys | None
    cipher_suite: str  # IANA spelling
    group: str  # IANA spelling
    version: str  # "DTLS 1.2"


@dataclass(frozen=True, slots=True)
class ApplicationData:
    data: bytes


@dataclass(frozen=True, slots=True)
class Closed:
    """The endpoint is dead and silent from here on. `reason` is a word fit for a metric label."""

    reason: str
    alert: int | None  # the description of the alert that was sent or received
    by_peer: bool


Output: TypeAlias = Datagram | Connected | ApplicationData | Closed

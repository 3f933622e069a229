"""What a bridge's core asks of the world around it, in the order in which it is to be done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from agent.upstream.playing import Cut

__all__ = ["Dial", "EndCall", "Flush", "HangUp", "Order", "ToClient"]


@dataclass(frozen=True, slots=True)
class ToClient:
    """Send this event to one client, or, with None, to all: the caller's and the controllers."""

    text: str
    client: int | None = None


@dataclass(frozen=True, slots=True)
class Dial:
    """Call the service; what comes of it is told by `receive_service_untrusted` and `lost`."""


@dataclass(frozen=True, slots=True)
class HangUp:
    """Give up the present connection, or the attempt; nothing more is heard of it."""


@dataclass(frozen=True, slots=True)
class Flush:
    """Be silent now, stop what is being sent, then tell `was_cut` how much was played."""

    cut: Cut


@dataclass(frozen=True, slots=True)
class EndCall:
    reason: str


Order: TypeAlias = ToClient | Dial | HangUp | Flush | EndCall

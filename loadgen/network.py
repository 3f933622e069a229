"""The bad network that a run may put between its calls and the server: `udpio`'s shaper beneath each line, and other sockets.

Each call has a path of its own, in both directions under the same conditions, drawn from the seed of the run and the number
of the call; so a run can be repeated, as far as the machine's own timing lets it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from random import Random

from protocol.address import TransportAddress
from udpio.shaper import Conditions, Shaper

__all__ = ["Datagram", "Network"]

Datagram = tuple[bytes, TransportAddress]


@dataclass(frozen=True, slots=True)
class Network:
    """By default the machine's own, untouched."""

    conditions: Conditions = field(default_factory=Conditions)
    rebind_seconds: float = math.inf
    """After so long a call goes on from another port, as behind a NAT that forgot it; again and again."""
    seed: int = 0

    @property
    def is_perfect(self) -> bool:
        return self.conditions.is_perfect and math.isinf(self.rebind_seconds)

    @property
    def loses(self) -> bool:
        """Whether frames are expected not to come back."""
        conditions = self.conditions
        lossy = (
            conditions.loss or conditions.burst_loss or math.isfinite(conditions.mtu) or math.isfinite(conditions.rate)
        )
        return bool(lossy) or math.isfinite(self.rebind_seconds)

    def shapers(self, call: int) -> tuple[Shaper[Datagram], Shaper[Datagram]] | None:
        """To the server and back; None when nothing is to be done to datagrams."""
        if self.conditions.is_perfect:
            return None
        up, down = (Random(f"{self.seed} {call} {way}") for way in ("up", "down"))
        return Shaper(self.conditions, up), Shaper(self.conditions, down)

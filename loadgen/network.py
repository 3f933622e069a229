"""The bad network that a run may put between its calls and the server: `udpio`'s shaper beneath each line, and other sockets.

Each call has a path of its own, in both directions under the same conditions, drawn from the seed of the run and the number
of the call; so a run can be repeated, as far as the machine's own timing lets it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from random import Random
from typing import Generic, TypeVar

from udpio.shaper import Conditions, Shaper

__all__ = ["Network", "UnderWay"]

Item = TypeVar("Item")


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

    def shapers(self, call: int) -> tuple[Shaper[bytes], Shaper[bytes]] | None:
        """To the server and back; None when nothing is to be done to datagrams."""
        if self.conditions.is_perfect:
            return None
        up, down = (Random(f"{self.seed} {call} {way}") for way in ("up", "down"))
        return Shaper(self.conditions, up), Shaper(self.conditions, down)


class UnderWay(Generic[Item]):
    """What networks carry, by the millisecond in which it arrives: one list for all calls, where a heap would have to
    compare each datagram with ten others. Nothing arrives early, and late by a millisecond at most."""

    def __init__(self) -> None:
        self._slots: dict[int, list[Item]] = {}
        self._next = 0  # millisecond; those before it have been taken

    def __bool__(self) -> bool:
        return bool(self._slots)

    def put(self, due: float, item: Item) -> None:
        slot = max(int(due * 1000) + 1, self._next)
        items = self._slots.get(slot)
        if items is None:
            self._slots[slot] = [item]
        else:
            items.append(item)

    def take(self, now: float) -> list[Item]:
        """What has arrived by now: by milliseconds, and in each in the order in which it set out."""
        end = int(now * 1000 + 1e-6) + 1  # at `next_arrival` there is something, however it is rounded
        if end <= self._next:
            return []
        slots = self._slots
        taken: list[Item] = []
        past = range(self._next, end) if end - self._next < len(slots) else sorted(slot for slot in slots if slot < end)
        for slot in past:
            taken += slots.pop(slot, ())
        self._next = end
        return taken

    def next_arrival(self) -> float:
        return min(self._slots) / 1000 if self._slots else math.inf

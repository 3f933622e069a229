"""Mischief with chosen datagrams of one direction: the fourth is dropped, the sixth doubled, the first two swapped."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Generic, TypeVar

__all__ = ["Mischief", "Plan"]

Item = TypeVar("Item")


class Mischief(enum.Enum):
    DROP = "drop"
    DOUBLE = "double"
    SWAP = "swap"  # it comes after the next one


class Plan(Generic[Item]):
    """`plan[n]` says what becomes of the nth datagram, from 0; the others pass."""

    def __init__(self, plan: Mapping[int, Mischief] | None = None) -> None:
        self._plan = dict(plan or {})
        self._held: list[Item] = []
        self.seen = 0

    def apply(self, item: Item) -> list[Item]:
        """What is sent on in place of this datagram."""
        mischief = self._plan.get(self.seen)
        self.seen += 1
        if mischief is Mischief.DROP:
            return []
        if mischief is Mischief.SWAP and not self._held:
            self._held = [item]
            return []
        held, self._held = self._held, []
        return [item, *([item] if mischief is Mischief.DOUBLE else []), *held]

"""A network address translator without its packets: which outer address an inner one has, and since when another.

A new outer address comes from `bind`: a counter in a simulation, a socket that is opened on a real machine. After a
rebinding nothing that is sent to the old one arrives any more, as when a home router was restarted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["Nat"]

# Implementation constants
MAX_MAPPINGS = 65_536  # then the one made first has to go, as in a router with that many ports

Inner = TypeVar("Inner", bound=Hashable)
Outer = TypeVar("Outer", bound=Hashable)


class Nat(Generic[Inner, Outer]):
    """`rebind_every` seconds after it was made, a mapping is replaced; `retired` is told of outer addresses given up."""

    def __init__(
        self,
        bind: Callable[[], Outer],
        *,
        rebind_every: float = math.inf,
        retired: Callable[[Outer], None] = lambda _: None,
        max_mappings: int = MAX_MAPPINGS,
    ) -> None:
        if not rebind_every > 0:
            raise ValueError(f"rebind_every: {rebind_every} is not above 0")
        self.rebindings = 0
        self.evicted = 0
        self.unmapped = 0
        """Datagrams that came to an outer address which is nobody's (any more)."""
        self._bind = bind
        self._rebind_every = rebind_every
        self._retired = retired
        self._max_mappings = max_mappings
        self._outward: dict[Inner, tuple[Outer, float]] = {}  # with the time it is to be replaced, in that order
        self._inward: dict[Outer, Inner] = {}

    def outward(self, inner: Inner, now: float) -> Outer:
        """Where a datagram of `inner` comes from, for the world; the first one makes the mapping."""
        mapping = self._outward.get(inner)
        if mapping is None:
            if len(self._outward) >= self._max_mappings:
                self.forget(next(iter(self._outward)))
                self.evicted += 1
            return self._map(inner, now)
        return mapping[0]

    def inward(self, outer: Outer) -> Inner | None:
        """Whom a datagram to `outer` reaches; None: nobody, and it is counted."""
        inner = self._inward.get(outer)
        if inner is None:
            self.unmapped += 1
        return inner

    def rebind(self, inner: Inner, now: float) -> Outer:
        """Another outer address from now on; the old one is dead."""
        self.forget(inner)
        self.rebindings += 1
        return self._map(inner, now)

    def forget(self, inner: Inner) -> None:
        """It is gone; its outer address is dead."""
        mapping = self._outward.pop(inner, None)
        if mapping is not None:
            del self._inward[mapping[0]]
            self._retired(mapping[0])

    def handle_timeout(self, now: float) -> None:
        """Rebind those whose time has come."""
        while now >= self.next_timeout():
            self.rebind(next(iter(self._outward)), now)

    def next_timeout(self) -> float:
        return next(iter(self._outward.values()))[1] if self._outward else math.inf

    def _map(self, inner: Inner, now: float) -> Outer:
        outer = self._bind()
        self._outward[inner] = (outer, now + self._rebind_every)
        self._inward[outer] = inner
        return outer

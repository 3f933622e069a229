"""What a bad network does to datagrams, without a network: they go in with a time, and come out later, or never.

1. `send` decides what becomes of a datagram: lost, too large, held back, doubled, or only late.
2. `poll` gives those whose time has come, in the order of their delivery; `next_timeout` says when to ask again.
3. One shaper is one direction. Two with the same conditions and seeds, told the same things, do the same.

Jitter alone never reorders: as in a queue, nobody overtakes. What is `held back` leaves the queue, so that those behind
it pass. Losses come singly (`loss`) and in bursts (`burst_loss`): the two states of Gilbert and Elliott, of which the
bad one loses everything.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from dataclasses import dataclass, fields
from random import Random
from typing import Generic, TypeVar

__all__ = ["Conditions", "Shaper"]

# Implementation constants
MAX_QUEUE = 4096  # datagrams under way in one shaper; the newest are dropped beyond it, as a router does
HEADERS = 28  # bytes of IPv4 and UDP, which count for `mtu` and `rate`

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Conditions:
    """One direction of a path; by default a perfect one. Raises ValueError, beginning with the field's name."""

    loss: float = 0.0
    """Share of the datagrams that are lost, each on its own."""
    burst_loss: float = 0.0
    """Share of the datagrams that are lost in bursts, besides."""
    burst_length: float = 5.0
    """Datagrams in such a burst, on average."""
    delay: float = 0.0
    """Seconds that every datagram takes."""
    jitter: float = 0.0
    """Seconds more that a datagram takes at most, evenly distributed."""
    reorder: float = 0.0
    """Share of the datagrams that are held back."""
    duplication: float = 0.0
    """Share of the datagrams that come twice; the second one is held back."""
    hold: float = 0.030
    """Seconds that a datagram is held back at most, evenly distributed."""
    mtu: float = math.inf
    """Bytes of an IP packet, headers included; longer ones vanish without a word."""
    rate: float = math.inf
    """Bits a second that pass, headers included; the rest waits."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if math.isnan(value) or value < 0:
                raise ValueError(f"{field.name}: {value} is below 0 or no number")
            if field.name in ("loss", "burst_loss", "reorder", "duplication") and value > 1:
                raise ValueError(f"{field.name}: {value} is no share from 0 to 1")
            if field.name in ("delay", "jitter", "hold", "burst_length") and math.isinf(value):
                raise ValueError(f"{field.name}: must end")
        if self.burst_length < 1:
            raise ValueError("burst_length: a burst has at least one datagram")
        if self.mtu <= HEADERS:
            raise ValueError(f"mtu: nothing fits in {self.mtu} bytes")
        if self.rate == 0:
            raise ValueError("rate: must be above 0; `loss=1` is how to cut a path")
        if self.burst_loss > self.burst_length / (self.burst_length + 1):
            # The good state lasts at least one datagram.
            raise ValueError(f"burst_loss: bursts of {self.burst_length} cannot lose {self.burst_loss} of all")

    @property
    def is_perfect(self) -> bool:
        return self == Conditions()


class Shaper(Generic[Item]):
    """Carries items of any kind, and looks at nothing but their length. It keeps what it is given: copy views first."""

    def __init__(self, conditions: Conditions, random: Random, *, max_queue: int = MAX_QUEUE) -> None:
        self.conditions = conditions
        """May be replaced at any time: for what is sent from then on."""
        self.offered = 0
        self.delivered = 0
        self.held_back = 0
        self.doubled = 0
        self.drops: Counter[str] = Counter()
        """`lost`, `lost_in_burst`, `too_large`, `queue_full`."""
        self._random = random.random
        self._max_queue = max_queue
        self._in_burst = False
        self._free_at = -math.inf  # when the line has sent what waits for `rate`
        self._last_due = -math.inf  # of what was not held back: nothing that follows comes before
        self._heap: list[tuple[float, int, Item]] = []
        self._order = itertools.count()

    def send(self, item: Item, length: int, now: float) -> None:
        """A datagram of `length` bytes of UDP payload sets out."""
        for due in self.route(length, now):
            self._put(due, item)

    def route(self, length: int, now: float) -> tuple[float, ...]:
        """When a datagram that sets out now arrives: never, once, or twice. For who keeps what is under way himself, such
        as a driver with one queue for many shapers; `send` and `poll` are for everybody else."""
        conditions, random = self.conditions, self._random
        self.offered += 1
        if conditions.burst_loss:
            # In the long run `burst_loss` of the time is spent in the bad state, `burst_length` datagrams at a time.
            leave = 1 / conditions.burst_length
            enter = leave * conditions.burst_loss / (1 - conditions.burst_loss)
            self._in_burst = random() >= leave if self._in_burst else random() < enter
        else:
            self._in_burst = False
        if length + HEADERS > conditions.mtu:
            self.drops["too_large"] += 1
            return ()
        if self._in_burst:
            self.drops["lost_in_burst"] += 1
            return ()
        if conditions.loss and random() < conditions.loss:
            self.drops["lost"] += 1
            return ()
        if conditions.rate != math.inf:
            self._free_at = now = max(now, self._free_at) + (length + HEADERS) * 8 / conditions.rate
        due = now + conditions.delay
        if conditions.jitter:
            due += random() * conditions.jitter
        first = due
        if conditions.reorder and random() < conditions.reorder:
            self.held_back += 1
            first = due + random() * conditions.hold
        else:
            self._last_due = first = due = max(due, self._last_due)
        if conditions.duplication and random() < conditions.duplication:
            self.doubled += 1
            return first, due + random() * conditions.hold
        return (first,)

    def poll(self, now: float) -> list[Item]:
        """What arrives by `now`."""
        heap = self._heap
        items: list[Item] = []
        while heap and heap[0][0] <= now:
            items.append(heapq.heappop(heap)[2])
        self.delivered += len(items)
        return items

    def next_timeout(self) -> float:
        """When the next datagram arrives."""
        return self._heap[0][0] if self._heap else math.inf

    @property
    def under_way(self) -> int:
        return len(self._heap)

    def _put(self, due: float, item: Item) -> None:
        if len(self._heap) >= self._max_queue:
            self.drops["queue_full"] += 1
        else:
            heapq.heappush(self._heap, (due, next(self._order), item))

"""Which transceivers know that this worker has begun, and may have lost what it knew of them. No I/O; time is an argument.

A transceiver is known once it has shown our boot number. Until then, whatever it sends makes us say hello, at most every
GREET_SECONDS; a hello with another number does so at any time, at most every ANSWER_SECONDS. See protocol.routing.notices
for the exchange.

The address that a datagram came from proves nothing, so nothing here is larger than what it answers. It may be another
relay's, which says hello with a number of its own: of two that answer each other at once, each time, there is no end.
"""

from __future__ import annotations

import math
from collections import OrderedDict

from protocol.address import TransportAddress
from protocol.errors import DecodeError
from protocol.routing import (
    Announcement,
    Trunk,
    TrunkKind,
    hello,
    read_announcement_untrusted,
    read_hello_untrusted,
)
from udpio import Datagram

__all__ = ["Greeter"]

# Implementation constants
GREET_SECONDS = 0.05
ANSWER_SECONDS = 0.02  # a transceiver says hello every 50 ms at most, unless it shows our number
MAX_TRANSCEIVERS = 4096  # remembered of each kind; beyond it the first makes room, and is greeted again
MAX_WAITING = 256  # hellos until somebody takes them; further ones are dropped


class Greeter:
    """`known` is asked for every trunk datagram; for who is not in it, call `meet`."""

    def __init__(self, trunk: Trunk, boot: bytes) -> None:
        self.known: OrderedDict[TransportAddress, None] = OrderedDict()
        self._boot = boot
        self._hello = hello(trunk, boot)
        self._greeted: OrderedDict[TransportAddress, float] = OrderedDict()
        self.waiting: list[Datagram] = []  # `take` them

    def meet(self, source: TransportAddress, length: int, now: float) -> None:
        """A genuine datagram of `length` bytes came from someone who is not known."""
        if length >= len(self._hello):
            self._say_hello(source, GREET_SECONDS, now)

    def hear_untrusted(
        self, kind: TrunkKind, datagram: bytes | memoryview, source: TransportAddress, now: float
    ) -> Announcement | None:
        """A genuine hello or announcement; the announcement, if it is meant for us. Raises DecodeError."""
        if kind is TrunkKind.HELLO:
            if read_hello_untrusted(datagram) == self._boot:
                self._know(source)
            else:
                self._say_hello(source, ANSWER_SECONDS, now)
            return None
        announcement = read_announcement_untrusted(datagram)
        if announcement.boot != self._boot:
            raise DecodeError("trunk_boot")
        self._know(source)
        return announcement

    def take(self) -> list[Datagram]:
        """Send these."""
        waiting, self.waiting = self.waiting, []
        return waiting

    def _know(self, source: TransportAddress) -> None:
        if source not in self.known:
            if len(self.known) >= MAX_TRANSCEIVERS:
                self.known.popitem(last=False)
            self.known[source] = None
            self._greeted.pop(source, None)

    def _say_hello(self, source: TransportAddress, interval: float, now: float) -> None:
        if now - self._greeted.get(source, -math.inf) < interval or len(self.waiting) >= MAX_WAITING:
            return
        if source not in self._greeted and len(self._greeted) >= MAX_TRANSCEIVERS:
            self._greeted.popitem(last=False)
        self._greeted[source] = now
        self.waiting.append((self._hello, source))

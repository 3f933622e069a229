"""What a transceiver does so that a relay which has lost its flows gets them back at once. No I/O; time is an argument.

For each relay trunk address that calls came through lately:

1. Nothing heard from it for HELLO_SECONDS: say hello, and again after as long. (It may have been restarted, and wait for a
   word of ours; who hears its callers knows that it lives. Nobody is asked for an answer, so a relay that is not there
   costs twenty datagrams a second, for as long as calls could still be there.)
2. It says hello with a boot number that is new to us: announce the calls that have proven a path through it, a slice at
   each turn, and confirm the number by a hello with it.

Only addresses are spoken to through which a call has proven its path. A recorded hello, sent again, makes us announce once
more: to the relay it names, at most every ANNOUNCE_SECONDS, and under a number that the relay does not accept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice

from protocol.address import Path, TransportAddress
from protocol.errors import DecodeError
from protocol.routing import NO_BOOT, Trunk, TrunkKind, announce, hello, read_hello_untrusted
from udpio import Datagram

__all__ = ["Relays"]

# Implementation constants
HELLO_SECONDS = 0.05
ANNOUNCE_SECONDS = 0.02
CARRIED_SECONDS = 40.0  # without a frame: no call is left there, its consent has expired (RFC 7675 §5.1: 30 s)
SLICE = 512  # calls looked at in one turn
MAX_RELAYS = 256  # trunk addresses; beyond it the one longest without a frame makes room

Paths = Callable[[], Iterator[Path | None]]


class _Relay:
    __slots__ = ("announced_at", "boot", "carried_at", "heard_at", "said_at", "to_announce")

    def __init__(self, now: float) -> None:
        self.boot = NO_BOOT  # as last heard
        self.heard_at = self.carried_at = self.said_at = now
        self.announced_at = -math.inf
        self.to_announce: Iterator[Path | None] | None = None

    def next_hello(self) -> float:
        return max(self.heard_at, self.said_at) + HELLO_SECONDS


class Relays:
    """`paths` begins a walk through all calls: the path each has proven, or None."""

    def __init__(self, trunk: Trunk, mtu: int, paths: Paths) -> None:
        self._trunk = trunk
        self._mtu = mtu
        self._paths = paths
        self._relays: dict[TransportAddress, _Relay] = {}
        self._due = math.inf

    def heard(self, address: TransportAddress, now: float) -> None:
        """Frames came from there, of a call that has proven its path."""
        relay = self._relays.get(address)
        if relay is None:
            if len(self._relays) >= MAX_RELAYS:
                self._relays.pop(min(self._relays, key=lambda known: self._relays[known].carried_at))
            relay = self._relays[address] = _Relay(now)
            self._due = min(self._due, relay.next_hello())
        relay.heard_at = relay.carried_at = now

    def hear_untrusted(self, datagram: bytes | memoryview, address: TransportAddress, now: float) -> None:
        """A trunk datagram that is not frames. Raises DecodeError if it is of no use."""
        if self._trunk.open_untrusted(datagram).kind is not TrunkKind.HELLO:
            raise DecodeError("trunk_kind")
        relay = self._relays.get(address)
        if relay is None:
            raise DecodeError("trunk_stranger")
        boot = read_hello_untrusted(datagram)
        if boot == NO_BOOT:
            raise DecodeError("trunk_hello")
        relay.heard_at = now
        if boot == relay.boot:
            relay.said_at = -math.inf  # it does not know that we know
            relay.heard_at = -math.inf
        elif now - relay.announced_at >= ANNOUNCE_SECONDS:
            relay.boot = boot
            relay.announced_at = now
            relay.to_announce = self._paths()
        self._due = -math.inf

    def next_timeout(self) -> float:
        return self._due

    def handle_timeout(self, now: float) -> list[Datagram]:
        """What to send; safe to call early."""
        if now < self._due:
            return []
        out: list[Datagram] = []
        self._due = math.inf
        for address, relay in list(self._relays.items()):
            if relay.to_announce is not None:
                self._announce(address, relay, out, now)
            elif now - relay.carried_at >= CARRIED_SECONDS:
                del self._relays[address]
                continue
            elif relay.next_hello() <= now:
                out.append((hello(self._trunk, relay.boot), address))
                relay.said_at = now
            self._due = min(self._due, -math.inf if relay.to_announce is not None else relay.next_hello())
        return out

    def _announce(self, address: TransportAddress, relay: _Relay, out: list[Datagram], now: float) -> None:
        assert relay.to_announce is not None
        clients: dict[int, list[TransportAddress]] = {}
        looked_at = 0
        for path in islice(relay.to_announce, SLICE):
            looked_at += 1
            if path is not None and path.local[:-1] == address:
                clients.setdefault(path.local[-1], []).append(path.remote)
        for ingress, some in clients.items():
            out += [(data, address) for data in announce(self._trunk, relay.boot, ingress, some, self._mtu)]
        if looked_at < SLICE:
            relay.to_announce = None
            out.append((hello(self._trunk, relay.boot), address))
            relay.said_at = now

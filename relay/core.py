"""The relay without its sockets: batches in, batches out, time as an argument. It terminates nothing.

    clients       ──▶ relay.uplink   ──▶ trunk datagrams     one call a batch and listen address
    transceivers  ──▶ relay.downlink ──▶ client datagrams    one call a batch
                        relay.rules judges what is not plainly a packet of an established flow

Sockets that receive into arenas have an Uplink each, and a Downlink. Who has datagrams as tuples (a system without
recvmmsg, tests, simulations) calls `receive_clients_untrusted` and `receive_trunk_untrusted`, which put them into an arena
and go the same way.
"""

from __future__ import annotations

import ctypes
import math
import secrets
import socket
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from protocol.address import TransportAddress
from protocol.routing import BOOT_LENGTH, KeyRing, Trunk
from relay.config import RelayConfig
from relay.downlink import Downlink
from relay.flows import FlowTable
from relay.greeter import Greeter
from relay.rules import FlowRules
from relay.sockets import CLIENT_SLOT, TRUNK_SLOT
from relay.uplink import Uplink
from udpio import Datagram, ReceiveArena, SendRing

__all__ = ["RelayCore"]

# Implementation constants

_SWEEP_INTERVAL = 1.0


class RelayCore(FlowRules):
    """One worker's packet logic. `wall_time` is for the age of tokens only. Without `flows`, a table of its own.

    `boot` is drawn if it is not given. Whoever passes on what the trunk brought sends what `greeter` has to say, too.
    """

    def __init__(
        self,
        config: RelayConfig,
        keys: KeyRing,
        trunk: Trunk,
        *,
        wall_time: Callable[[], float],
        flows: FlowTable | None = None,
        boot: bytes | None = None,
    ) -> None:
        super().__init__(config, keys, wall_time=wall_time, flows=flows)
        self._trunk = trunk
        self.greeter = Greeter(
            trunk, boot or secrets.token_bytes(BOOT_LENGTH)
        )  # its hellos leave with what the trunk brought
        self._sweep_at = -math.inf
        self._uplinks: dict[tuple[int, int], tuple[ReceiveArena, Uplink]] = {}
        self._downlinks: dict[int, tuple[ReceiveArena, Downlink]] = {}

    def uplink(self, arena: ReceiveArena, ingress: int, trunk_family: int) -> Uplink:
        """For what a socket of a listen address receives into `arena`."""
        return Uplink(self, self._trunk, self._keys.config.trunk_mtu, arena, ingress, trunk_family)

    def downlink(self, arena: ReceiveArena) -> Downlink:
        """For what the trunk's socket receives into `arena`."""
        return Downlink(self, self._trunk, self._keys.prefix, arena, len(self.config.listen), self.greeter)

    def handle_timeout(self, now: float) -> None:
        """Safe to call early."""
        if now >= self._sweep_at:
            self._sweep_at = now + (_SWEEP_INTERVAL if self.flows.expire(now) else 0.0)

    def next_timeout(self) -> float:
        return self._sweep_at if self.flows.established or self.flows.probationary else math.inf

    # ---- batches of tuples

    def receive_clients_untrusted(
        self, batch: Sequence[tuple[memoryview, TransportAddress]], ingress: int, now: float
    ) -> list[Datagram]:
        """What clients sent to one listen address; returns trunk datagrams to send. Never raises for any bytes."""
        out: list[Datagram] = []
        for family, part in _by_family(batch, self.config.batch_size):
            key = ingress, family
            if key not in self._uplinks:
                arena = ReceiveArena(self.config.batch_size, CLIENT_SLOT, family)
                self._uplinks[key] = arena, self.uplink(arena, ingress, socket.AF_INET)
            arena, uplink = self._uplinks[key]
            _fill(arena, part)
            count = uplink.forward_untrusted(len(part), now)
            out += _datagrams(uplink.ring, count)
        return out

    def receive_trunk_untrusted(
        self, batch: Sequence[tuple[memoryview, TransportAddress]], now: float
    ) -> list[list[Datagram]]:
        """What came over the trunk; returns, by ingress, datagrams to send to clients. Never raises for any bytes."""
        out: list[list[Datagram]] = [[] for _ in self.config.listen]
        for family, part in _by_family(batch, self.config.batch_size):
            if family not in self._downlinks:
                arena = ReceiveArena(self.config.batch_size, TRUNK_SLOT, family)
                self._downlinks[family] = arena, self.downlink(arena)
            arena, downlink = self._downlinks[family]
            _fill(arena, part)
            for ingress, ring, count in downlink.forward_untrusted(len(part), now):
                out[ingress] += _datagrams(ring, count)
        return out


_Batch = Sequence[tuple[memoryview, TransportAddress]]


def _by_family(batch: _Batch, most: int) -> Iterator[tuple[int, _Batch]]:
    for is_ipv6, some in groupby(batch, key=lambda datagram: len(datagram[1]) == 18):
        part = list(some)
        for first in range(0, len(part), most):
            yield socket.AF_INET6 if is_ipv6 else socket.AF_INET, part[first : first + most]


def _fill(arena: ReceiveArena, batch: _Batch) -> None:
    for index, (data, address) in enumerate(batch):
        arena.put(index, data, address)
    arena.survey(len(batch))


def _datagrams(ring: SendRing, count: int) -> Iterator[Datagram]:
    """What a kernel would read: each datagram's pieces put together, and where it goes."""
    headers, vectors = ring.header_cells, ring.vector_cells
    for message in range(count):
        name, first, pieces = (headers[8 * message + word] for word in (0, 2, 3))
        at = (first - ring.vector_address) // 8
        data = b"".join(ctypes.string_at(vectors[place], vectors[place + 1]) for place in range(at, at + 2 * pieces, 2))
        raw = ctypes.string_at(name, 24)
        is_ipv6 = int.from_bytes(raw[:2], "little") == socket.AF_INET6
        yield data, TransportAddress(raw[2:4] + raw[8:24] if is_ipv6 else raw[2:8])

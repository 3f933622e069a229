"""Datagrams on their way out, gathered for one send: bundled into trunk datagrams by relay, or as they are.

A path's `local` part says which way a client is reached: empty for our own socket; else the relay's trunk address
followed by the ingress, one byte, that its frames came with.

Both ways are an `Outlet`. What is to be sent is written where it will be sent from:

1. `reserve(size)` gives a place in `arena` with so much room; write there, and protect it there.
2. `commit(client, length)` says how long it became, and whom it is for. A place that is not committed is given again.
3. `flush` sends everything by one system call for each kind of outlet, and the memory is free again.

A datagram stays behind those that were committed before it through the same outlet.

    direct     one slot for each datagram
    trunk      head and descriptors | payloads one after another: two pieces, sent as one datagram
"""

from __future__ import annotations

import socket
import struct
from typing import Protocol, TypeAlias

import numpy as np

from protocol.address import Path, TransportAddress
from protocol.peer import SEND_ROOM
from protocol.routing import DATAGRAM_OVERHEAD, Frame, Trunk, TrunkHead, TrunkKind
from protocol.srtp import Arena, SrtpLibrary
from udpio import BatchSocket, SendRing, UdpSocket, name_words

__all__ = ["Outbox", "Outlet", "Target", "relay_local"]

# Implementation constants
SLOTS = 64  # datagrams that wait for a send: with these many the send begins at once
DIRECT_SLOT = 1536  # longer ones are sent singly
MAX_FRAMES = 64  # in one trunk datagram
MAX_OUTLETS = 256  # relays × ingresses × families remembered
UNBUNDLED = 1500  # the longest datagram of one frame, where bundling is off
DESCRIPTORS = DATAGRAM_OVERHEAD + 24 * MAX_FRAMES  # head and descriptors of a datagram, at most

_IPV4_DESCRIPTOR = struct.Struct("!H6s")
_IPV6_DESCRIPTOR = struct.Struct("!H2s4x16s")


def relay_local(relay: TransportAddress, ingress: int) -> bytes:
    """The `local` part of paths through an ingress of a relay."""
    return relay + bytes((ingress,))


Target: TypeAlias = TransportAddress | int | tuple[int, ...]
"""A client as an outlet wants it: its transport address, or the words of its socket address."""


class Outlet(Protocol):
    """One way out."""

    @property
    def arena(self) -> Arena: ...

    @property
    def room(self) -> int:
        """Bytes that can be reserved at most; longer datagrams: `Outbox.send`."""

    def target(self, client: TransportAddress) -> Target:
        """What `commit` wants to know of a client; worth keeping."""

    def reserve(self, size: int) -> int:
        """Where in `arena` so many bytes may be written."""

    def commit(self, target: Target, length: int) -> None:
        """So many bytes are there, no more than were reserved."""


class DirectOutlet:
    """From our socket to the client's: a slot for each datagram."""

    __slots__ = (
        "_count",
        "_memory",
        "_names",
        "_ring",
        "_socket",
        "_targets",
        "_vectors",
        "arena",
        "room",
    )

    def __init__(self, udp: UdpSocket, library: SrtpLibrary) -> None:
        self._socket = udp
        self._memory = np.zeros(SLOTS * DIRECT_SLOT, np.uint8)
        self.arena = library.arena(self._memory.data)
        self._ring = SendRing(SLOTS, SLOTS, _family(udp))
        self._ring.vectors[:, 0] = np.uint64(self._memory.ctypes.data) + np.arange(SLOTS, dtype=np.uint64) * DIRECT_SLOT
        self._vectors, self._names = self._ring.vector_cells, self._ring.name_cells
        self.room = DIRECT_SLOT
        self._count = 0
        self._targets: list[TransportAddress] = []  # for sockets that take no ring

    def target(self, client: TransportAddress) -> Target:
        if not isinstance(self._socket, BatchSocket):
            return client
        words = name_words(client, self._ring.family)
        return words if len(words) > 1 else words[0]

    def reserve(self, size: int) -> int:
        if self._count == SLOTS:
            self.flush()
        return self._count * DIRECT_SLOT

    def commit(self, target: Target, length: int) -> None:
        count = self._count
        self._vectors[2 * count + 1] = length
        if isinstance(target, int):
            self._names[count] = target
        elif isinstance(target, tuple):
            names = self._names
            names[3 * count], names[3 * count + 1], names[3 * count + 2] = target
        else:
            self._targets.append(target)
        self._count = count + 1

    def flush(self) -> None:
        count, self._count = self._count, 0
        if not count:
            return
        if isinstance(self._socket, BatchSocket):
            self._socket.send(self._ring, count)
            return
        lengths, view = self._ring.vector_cells, self.arena.view
        targets, self._targets = self._targets, []
        self._socket.send_batch(
            [
                (view[at : at + lengths[2 * index + 1]], target)
                for index, (at, target) in enumerate(zip(range(0, len(view), DIRECT_SLOT), targets))
            ]
        )


class TrunkRing:
    """The trunk datagrams of one send, of all relays."""

    __slots__ = (
        "_memory",
        "_open",
        "_outlets",
        "_ring",
        "_slot_size",
        "_socket",
        "_used",
        "arena",
        "frames_refused",
        "frames_sent",
        "max_frames",
        "mtu",
        "trunk",
    )

    def __init__(self, udp: UdpSocket, library: SrtpLibrary, trunk: Trunk, mtu: int) -> None:
        self.trunk = trunk
        self.mtu = mtu or UNBUNDLED
        self.max_frames = MAX_FRAMES if mtu else 1
        self.frames_sent = 0
        self.frames_refused = 0  # by the kernel, with their datagram
        self._socket = udp
        self._slot_size = DESCRIPTORS + self.mtu + SEND_ROOM
        self._memory = np.zeros(SLOTS * self._slot_size, np.uint8)
        self.arena = library.arena(self._memory.data)
        self._ring = SendRing(SLOTS, 2 * SLOTS, _family(udp))
        starts = np.uint64(self._memory.ctypes.data) + np.arange(SLOTS, dtype=np.uint64) * np.uint64(self._slot_size)
        self._ring.vectors[0::2, 0] = starts
        self._ring.vectors[1::2, 0] = starts + np.uint64(DESCRIPTORS)
        for slot, name in enumerate(self._ring.name_addresses.tolist()):
            self._ring.aim(slot, name, 2 * slot, 2)
        self._used: list[tuple[TransportAddress, int, int, int]] = []  # relay, frames, length of each piece
        self._open: dict[TrunkOutlet, None] = {}
        self._outlets: dict[tuple[bytes, bool], TrunkOutlet] = {}

    def outlet(self, local: bytes, client: TransportAddress) -> TrunkOutlet:
        """By the `local` part of the paths through it, and by the family of its clients."""
        key = local, len(client) == 18
        found = self._outlets.get(key)
        if found is None:
            if len(self._outlets) >= MAX_OUTLETS:  # relays come and go; who still has this one keeps it
                self._outlets.pop(next(iter(self._outlets)))
            found = self._outlets[key] = TrunkOutlet(self, TransportAddress(local[:-1]), local[-1], is_ipv6=key[1])
        return found

    def next_start(self) -> int:
        """Where the next slot begins."""
        if len(self._used) == SLOTS:
            self.flush()
        return len(self._used) * self._slot_size

    def begin(self, outlet: TrunkOutlet) -> int:
        """Take that slot; its number."""
        self._used.append((outlet.relay, 0, 0, 0))
        self._open[outlet] = None
        return len(self._used) - 1

    def end(self, outlet: TrunkOutlet, slot: int, frames: int, pieces: tuple[int, int]) -> None:
        del self._open[outlet]
        self.frames_sent += frames
        cells = self._ring.vector_cells
        cells[4 * slot + 1], cells[4 * slot + 3] = pieces
        self._used[slot] = (outlet.relay, frames, *pieces)
        if isinstance(self._socket, BatchSocket):
            self._ring.names[slot] = name_words(outlet.relay, self._ring.family)

    def flush(self) -> None:
        for outlet in list(self._open):
            outlet.close()
        used, self._used = self._used, []
        if not used:
            return
        if isinstance(self._socket, BatchSocket):
            if self._socket.send(self._ring, len(used)) < len(used):
                self._count_refused(sum(used[slot][1] for slot in self._ring.refused))
            return
        view = self.arena.view
        for at, (relay, frames, head, rest) in zip(range(0, len(view), self._slot_size), used):
            data = bytes(view[at : at + head]) + bytes(view[at + DESCRIPTORS : at + DESCRIPTORS + rest])
            self.send_one(data, relay, frames)

    def send_one(self, data: bytes, relay: TransportAddress, frames: int) -> None:
        """A trunk datagram by itself; its frames have been counted as sent."""
        if not self._socket.send_batch([(data, relay)]):
            self._count_refused(frames)

    def _count_refused(self, frames: int) -> None:
        self.frames_sent -= frames
        self.frames_refused += frames


class TrunkOutlet:
    """Through one ingress of one relay: the open datagram."""

    __slots__ = (
        "_descriptor",
        "_end",
        "_frames",
        "_ingress",
        "_is_ipv6",
        "_overhead",
        "_ring",
        "_slot",
        "_start",
        "arena",
        "relay",
        "room",
    )

    def __init__(self, ring: TrunkRing, relay: TransportAddress, ingress: int, *, is_ipv6: bool) -> None:
        self.relay = relay
        self.arena = ring.arena
        self._ring = ring
        self._ingress = ingress
        self._is_ipv6 = is_ipv6
        self._overhead = _IPV6_DESCRIPTOR.size if is_ipv6 else _IPV4_DESCRIPTOR.size
        self.room = ring.mtu - DATAGRAM_OVERHEAD - self._overhead
        self._slot = -1
        self._start = self._end = self._descriptor = self._frames = 0

    def target(self, client: TransportAddress) -> TransportAddress:
        return client

    def reserve(self, size: int) -> int:
        if self._slot >= 0:
            payloads = self._end - self._start - DESCRIPTORS
            total = DATAGRAM_OVERHEAD + (self._frames + 1) * self._overhead + payloads + size
            if total <= self._ring.mtu and self._frames < self._ring.max_frames:
                return self._end
            self.close()
        self._start = self._ring.next_start()  # taken with the first frame: a datagram of none must not leave
        self._end = self._start + DESCRIPTORS
        self._descriptor = self._start + DATAGRAM_OVERHEAD
        self._frames = 0
        return self._end

    def commit(self, target: Target, length: int) -> None:
        assert isinstance(target, bytes)
        if self._slot < 0:
            self._slot = self._ring.begin(self)
        if self._is_ipv6:
            _IPV6_DESCRIPTOR.pack_into(self.arena.view, self._descriptor, length, target[:2], target[2:])
        else:
            _IPV4_DESCRIPTOR.pack_into(self.arena.view, self._descriptor, length, target)
        self._descriptor += self._overhead
        self._end += length
        self._frames += 1

    def close(self) -> None:
        """Sign what there is; the next frame begins another datagram."""
        slot, self._slot = self._slot, -1
        start, pieces = self._start, (self._descriptor - self._start, self._end - self._start - DESCRIPTORS)
        view = self.arena.view
        head = TrunkHead(TrunkKind.FRAMES, self._is_ipv6, self._ingress, self._frames)
        descriptors = bytes(view[start + DATAGRAM_OVERHEAD : self._descriptor])
        view[start : start + DATAGRAM_OVERHEAD] = self._ring.trunk.seal_head(head, descriptors, pieces[1])
        self._ring.end(self, slot, self._frames, pieces)


class Outbox:
    """Holds one wake's output; `flush` empties it. What the socket cannot take is dropped, and counted there."""

    __slots__ = ("_direct", "_mtu", "_socket", "_trunk_ring")

    def __init__(self, udp: UdpSocket, trunk: Trunk | None, mtu: int, library: SrtpLibrary) -> None:
        self._socket = udp
        self._mtu = mtu
        self._direct = DirectOutlet(udp, library)
        self._trunk_ring = TrunkRing(udp, library, trunk, mtu) if trunk is not None else None

    @property
    def frames_sent(self) -> int:
        """By trunk, those of trunk datagrams that are closed."""
        return self._trunk_ring.frames_sent if self._trunk_ring is not None else 0

    @property
    def frames_refused(self) -> int:
        """By the kernel, in trunk datagrams."""
        return self._trunk_ring.frames_refused if self._trunk_ring is not None else 0

    def outlet(self, path: Path) -> Outlet:
        """The way along `path`."""
        if not path.local:
            return self._direct
        assert self._trunk_ring is not None  # such paths come from trunk datagrams only
        return self._trunk_ring.outlet(path.local, path.remote)

    def send(self, data: bytes, path: Path) -> None:
        """A datagram that lies elsewhere."""
        size, outlet = len(data), self.outlet(path)
        if size > outlet.room:
            self._send_long(data, path)
            return
        at = outlet.reserve(size)
        outlet.arena.view[at : at + size] = data
        outlet.commit(outlet.target(path.remote), size)

    def flush(self) -> None:
        self._direct.flush()
        if self._trunk_ring is not None:
            self._trunk_ring.flush()

    def _send_long(self, data: bytes, path: Path) -> None:
        """Longer than any slot, left to IP fragmentation."""
        self.flush()
        if not path.local:
            self._socket.send_batch([(data, path.remote)])
        elif self._trunk_ring is not None:
            self._trunk_ring.frames_sent += 1
            frame = Frame(path.remote, path.local[-1], data)
            relay = TransportAddress(path.local[:-1])
            for datagram in self._trunk_ring.trunk.encode([frame], self._mtu):
                self._trunk_ring.send_one(datagram, relay, 1)


def _family(udp: UdpSocket) -> int:
    return socket.AF_INET if len(udp.address) == 6 else socket.AF_INET6

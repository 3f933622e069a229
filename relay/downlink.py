"""From transceivers to clients: a batch of trunk datagrams becomes client datagrams, and no payload is copied.

1. Datagram by datagram: who sent it, its head, its tag. What is not right is dropped before any of it is used. Whoever does
   not know yet that this worker has begun is to be told (relay.greeter); an announcement of calls makes flows.
2. The descriptors of all datagrams for one ingress are one array then. Lengths are added up, and a datagram whose sum is
   wrong is dropped with all its frames. 3. A descriptor becomes the socket address it goes to by one operation, the running
   sum of the lengths becomes where each payload lies. 4. The flow table is asked, to note which flows were heard of; what
   is not a plain reply of a flow's own transceiver goes the slow way (relay.rules), and is delivered all the same: every
   reply frame names the client and the ingress, so delivering needs no state.

Below FEW frames the same is done one by one over the same memory.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from protocol.address import TransportAddress
from protocol.errors import DecodeError
from protocol.routing import DATAGRAM_OVERHEAD, Prefix, Trunk, TrunkHead, TrunkKind
from relay.greeter import Greeter
from relay.index import flow_words
from relay.rules import FlowRules, is_goodbye, is_talk
from udpio import ReceiveArena, SendRing, name_words

__all__ = ["Delivery", "Downlink"]

# Implementation constants

FEW = 16
RING = 1024  # datagrams that leave by one call at most
_MAX_SOURCES = 4096  # addresses of transceivers whose judgement is remembered
_HEAD_WORDS = DATAGRAM_OVERHEAD // 8
_LOW = np.uint64(0xFFFF)
_HIGH = np.uint64(0xFFFF_FFFF_FFFF_0000)
_PORT = np.uint64(0xFFFF_0000)
_LENGTHS = np.arange(65536, dtype=np.uint16).byteswap().astype(np.int64)  # of a descriptor, as a word says it
_TALKS = np.array([1 if is_talk(first) else 2 if is_goodbye(first) else 0 for first in range(256)], np.uint8)

_Words = npt.NDArray[np.uint64]
_Integers = npt.NDArray[np.int64]


class Delivery(NamedTuple):
    """Send that many datagrams of `ring` from the socket of `ingress`, before you ask for the next one."""

    ingress: int
    ring: SendRing
    datagrams: int


class _Part(NamedTuple):
    """A datagram that is genuine; its lengths are still to be added up."""

    slot: int
    source: TransportAddress
    frames: int
    length: int


class _Chunk(NamedTuple):
    """So many frames of one ingress as leave by one call."""

    ingress: int
    descriptors: _Words
    lengths: _Integers
    places: _Integers  # of the payloads, from the beginning of the arena on
    senders: npt.NDArray[np.int32]  # numbers of the transceivers, -1 for one that no flow names
    owners: _Integers  # indices of parts


class Downlink:
    def __init__(
        self,
        rules: FlowRules,
        trunk: Trunk,
        prefix: Prefix,
        arena: ReceiveArena,
        ingresses: int,
        greeter: Greeter,
    ) -> None:
        self._greeter = greeter
        self._rules, self._trunk, self._arena, self._ingresses = rules, trunk, arena, ingresses
        self._contains = prefix.contains
        self._sources: dict[tuple[int, ...], TransportAddress | None] = {}
        self._rings: dict[tuple[int, bool], SendRing] = {}
        flat = arena.slots.base
        assert isinstance(flat, np.ndarray)
        self._flat: npt.NDArray[np.uint8] = flat.reshape(-1)
        self._flat_words: _Words = self._flat.view(np.uint64)
        self._base = int(arena.slot_addresses[0])
        self._stride = flat.shape[1]
        self._steps = np.arange(arena.count)

    def forward_untrusted(self, count: int, now: float) -> Iterator[Delivery]:
        """The first `count` slots of the arena. Never raises for any bytes."""
        parts: dict[tuple[int, bool], list[_Part]] = {}
        for slot in range(count):
            try:
                opened = self._open_untrusted(slot, now)
            except DecodeError as refused:
                self._rules.drops[refused.reason] += 1
                continue
            if opened is None:
                continue
            head, part = opened
            key = head.ingress, head.is_ipv6
            if key in parts:
                parts[key].append(part)
            else:
                parts[key] = [part]
        for (ingress, is_ipv6), some in parts.items():
            if sum(part.frames for part in some) < FEW:
                yield from self._deliver_few(ingress, is_ipv6, some, now)
            else:
                yield from self._deliver_many(ingress, is_ipv6, some, now)

    def _open_untrusted(self, slot: int, now: float) -> tuple[TrunkHead, _Part] | None:
        arena = self._arena
        source = self._source(slot)
        if source is None:  # even a replayed datagram teaches us nobody outside the prefix
            raise DecodeError("trunk_source")
        length = arena.cells[slot]
        if length > arena.slot_size:
            raise DecodeError("truncated")
        head = self._trunk.open_untrusted(arena.payloads[slot][:length])
        if head.ingress >= self._ingresses:
            raise DecodeError("trunk_ingress")
        if head.kind is not TrunkKind.FRAMES:
            announcement = self._greeter.hear_untrusted(head.kind, arena.payloads[slot][:length], source)
            if announcement is not None:
                for client in announcement.clients:
                    self._rules.announced(flow_words(client, head.ingress), source, now)
            return None
        if source not in self._greeter.known:
            self._greeter.meet(source, length, now)
        return head, _Part(slot, source, head.frames, length)

    def _source(self, slot: int) -> TransportAddress | None:
        """The address of who sent it; None if it is outside the prefix. Judged once for each."""
        cells = self._arena.name_cells
        name = (cells[slot],) if self._arena.family == socket.AF_INET else tuple(cells[3 * slot : 3 * slot + 3])
        try:
            return self._sources[name]
        except KeyError:
            pass
        address: TransportAddress | None = self._arena.address(slot)
        if address is not None and not self._contains(address):
            address = None
        if len(self._sources) >= _MAX_SOURCES:
            self._sources.clear()
        self._sources[name] = address
        return address

    def _ring(self, ingress: int, is_ipv6: bool) -> SendRing:
        key = ingress, is_ipv6
        if key not in self._rings:
            self._rings[key] = SendRing(RING, RING, socket.AF_INET6 if is_ipv6 else socket.AF_INET)
        return self._rings[key]

    # ---- many

    def _deliver_many(self, ingress: int, is_ipv6: bool, parts: list[_Part], now: float) -> Iterator[Delivery]:
        width = 3 if is_ipv6 else 1
        descriptors, lengths = self._gather(parts, width)
        frames = np.array([part.frames for part in parts])
        starts = np.cumsum(frames) - frames
        expected = np.array([part.length for part in parts]) - (DATAGRAM_OVERHEAD + 8 * width * frames)
        sums = np.add.reduceat(lengths, starts)
        if np.count_nonzero(sums != expected):
            right = (sums == expected).tolist()
            self._rules.drops["trunk_length"] += len(parts) - sum(right)
            parts = [part for part, is_right in zip(parts, right) if is_right]
            if parts:
                yield from self._deliver_many(ingress, is_ipv6, parts, now)
            return
        # A payload's place: where its datagram's payloads begin, and what of them came before it.
        places = np.cumsum(lengths) - lengths
        bodies = np.array([part.slot * self._stride + DATAGRAM_OVERHEAD + 8 * width * part.frames for part in parts])
        bodies -= places[starts]
        owners = np.repeat(self._steps[: len(parts)], frames)
        places += bodies.take(owners)
        numbers = self._rules.flows.transceivers.numbers
        senders = np.array([numbers.get(part.source, -1) for part in parts], np.int32).take(owners)
        self._rules.frames_down += len(lengths)
        ring = self._ring(ingress, is_ipv6)
        for first in range(0, len(lengths), RING):
            some = slice(first, first + RING)
            chunk = _Chunk(ingress, descriptors[some], lengths[some], places[some], senders[some], owners[some])
            self._note(chunk, parts, now)
            count = len(chunk.lengths)
            names = ring.names[:count]
            np.bitwise_or(chunk.descriptors[:, 0] & _HIGH, np.uint64(ring.family), out=names[:, 0])
            if is_ipv6:
                names[:, 1:] = chunk.descriptors[:, 1:]
            ring.vectors[:count, 0] = chunk.places + self._base
            ring.vectors[:count, 1] = chunk.lengths
            yield Delivery(ingress, ring, count)

    def _gather(self, parts: list[_Part], width: int) -> tuple[_Words, _Integers]:
        """Descriptors, shape (frames, 1 or 3), and their lengths."""
        words = self._flat_words
        step = self._stride // 8
        pieces = []
        for slot, _, frames, _ in parts:
            start = slot * step + _HEAD_WORDS
            pieces.append(words[start : start + width * frames])
        descriptors = np.concatenate(pieces).reshape(-1, width)
        return descriptors, _LENGTHS.take((descriptors[:, 0] & _LOW).view(np.int64))

    def _note(self, chunk: _Chunk, parts: list[_Part], now: float) -> None:
        """Which flows were heard of, and whether they talk."""
        ingress, descriptors, lengths, places, senders, _ = chunk
        flows = self._rules.flows
        rows = np.empty(len(lengths), np.int64)
        if descriptors.shape[1] == 3:
            keys = np.ascontiguousarray(descriptors.T)
            keys[0] &= _PORT  # no flow label
            keys[0] |= np.uint64(ingress | 128)
            flows.lookup_wide(keys, rows)
        else:
            flows.lookup((descriptors[:, 0] & _HIGH) | np.uint64(ingress), rows)
        theirs = flows.columns.target.take(rows) == senders
        all_theirs = np.count_nonzero(theirs) == len(rows)
        talks = _TALKS.take(self._flat.take(places, mode="clip"))
        if np.count_nonzero(lengths) != len(lengths):
            talks[lengths == 0] = 0
        heard = rows
        if not all_theirs:
            heard, talks = rows[theirs], talks[theirs]
        flows.columns.seen[heard] = now
        if np.count_nonzero(talks == 1) == len(talks):
            flows.columns.talked[heard] = now
        else:
            some = talks != 0
            flows.columns.talked[heard[some]] = np.where(talks[some] == 1, now, -math.inf)
        if not all_theirs:
            self._note_others(chunk, parts, np.flatnonzero(~theirs), now)

    def _note_others(self, chunk: _Chunk, parts: list[_Part], which: _Integers, now: float) -> None:
        for index in which.tolist():
            raw = chunk.descriptors[index].tobytes()
            client = TransportAddress(raw[2:8] if len(raw) == 8 else raw[2:4] + raw[8:])
            place = int(chunk.places[index])
            payload = self._flat[place : place + int(chunk.lengths[index])].data
            self._note_one(client, chunk.ingress, parts[chunk.owners[index]].source, payload, now)

    # ---- one by one

    def _deliver_few(self, ingress: int, is_ipv6: bool, parts: list[_Part], now: float) -> Iterator[Delivery]:
        arena, ring = self._arena, self._ring(ingress, is_ipv6)
        count, family = 0, ring.family
        vectors, names = ring.vector_cells, ring.name_cells
        for part in parts:
            try:
                _, first, clients = self._trunk.split_untrusted(arena.payloads[part.slot][: part.length])
            except DecodeError as refused:
                self._rules.drops[refused.reason] += 1
                continue
            payload = arena.payloads[part.slot]
            place = int(arena.slot_addresses[part.slot]) + first
            for length, raw in clients:
                client = TransportAddress(raw)
                self._note_one(client, ingress, part.source, payload[first : first + length], now)
                vectors[2 * count] = place
                vectors[2 * count + 1] = length
                place += length
                first += length
                if is_ipv6:
                    names[3 * count], names[3 * count + 1], names[3 * count + 2] = name_words(client, family)
                else:
                    names[count] = family | int.from_bytes(client, "little") << 16
                count += 1
        self._rules.frames_down += count
        if count:
            yield Delivery(ingress, ring, count)

    def _note_one(
        self, client: TransportAddress, ingress: int, source: TransportAddress, payload: bytes | memoryview, now: float
    ) -> None:
        flows = self._rules.flows
        cells = flows.cells
        words = flow_words(client, ingress)
        row = flows.find_words(words)
        target = cells.target[row]
        if target and target == flows.transceivers.numbers.get(source):
            cells.seen[row] = now
            first = payload[0] if payload else 0
            if is_talk(first):
                cells.talked[row] = now
            elif is_goodbye(first):
                cells.talked[row] = -math.inf
        else:
            self._rules.learn(row, words, source, payload, now)

"""From transceivers to clients: a batch of trunk datagrams becomes client datagrams, and no payload is copied.

1. What is no genuine datagram of frames is dropped before any of it is used (relay.gate).
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

from protocol.routing import DATAGRAM_OVERHEAD, Prefix, Trunk
from relay.gate import LENGTHS, LENGTHS_LIST, Group, Parts, TrunkGate
from relay.greeter import Greeter
from relay.index import Words
from relay.rules import FlowRules, is_goodbye, is_talk
from udpio import ReceiveArena, SendRing

__all__ = ["Delivery", "Downlink"]

# Implementation constants

FEW = 24  # measured: where both ways cost the same
RING = 1024  # datagrams that leave by one call at most
_HEAD_WORDS = DATAGRAM_OVERHEAD // 8
_LOW = np.uint64(0xFFFF)
_HIGH = np.uint64(0xFFFF_FFFF_FFFF_0000)
_PORT = np.uint64(0xFFFF_0000)
_HIGH_BITS, _PORT_BITS = int(_HIGH), int(_PORT)
_WIDE_MARK = 128  # in the key of an IPv6 flow
_THREE = np.arange(3)
_TALKS = np.array([1 if is_talk(first) else 2 if is_goodbye(first) else 0 for first in range(256)], np.uint8)
_TALKS_LIST: list[int] = _TALKS.tolist()

_Words = npt.NDArray[np.uint64]
_Integers = npt.NDArray[np.int64]


class Delivery(NamedTuple):
    """Send that many datagrams of `ring` from the socket of `ingress`, before you ask for the next one."""

    ingress: int
    ring: SendRing
    datagrams: int


class _Chunk(NamedTuple):
    """So many frames of one ingress as leave by one call."""

    ingress: int
    descriptors: _Words
    lengths: _Integers
    places: _Integers  # of the payloads, from the beginning of the arena on
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
        self._gate = TrunkGate(rules, trunk, prefix, arena, ingresses, greeter)
        self._rules, self._arena, self._ingresses = rules, arena, ingresses
        self._rings: dict[Group, SendRing] = {}
        self._memory = arena.memory
        self._words = arena.memory.cast("Q")
        self._bytes_array = np.frombuffer(arena.memory, np.uint8)
        self._word_array = np.frombuffer(arena.memory, np.uint64)
        self._base = int(arena.slot_addresses[0])
        self._stride = int(arena.slots.strides[0])
        self._steps = np.arange(arena.count)

    def forward_untrusted(self, count: int, now: float) -> Iterator[Delivery]:
        """The first `count` slots of the arena. Never raises for any bytes."""
        if count < FEW and sum(self._claimed(slot) for slot in range(count)) < FEW:
            yield from self._deliver_few(count, now)
            return
        for (ingress, is_ipv6), parts in self._gate.open_untrusted(count, now):
            yield from self._deliver_many(ingress, is_ipv6, parts, now)

    def _claimed(self, slot: int) -> int:
        """How many frames a datagram says that it has."""
        data = self._arena.payloads[slot]
        return data[4] << 8 | data[5]

    def _ring(self, ingress: int, is_ipv6: bool) -> SendRing:
        key = ingress, is_ipv6
        if key not in self._rings:
            self._rings[key] = SendRing(RING, RING, socket.AF_INET6 if is_ipv6 else socket.AF_INET)
        return self._rings[key]

    # ---- many

    def _deliver_many(self, ingress: int, is_ipv6: bool, parts: Parts, now: float) -> Iterator[Delivery]:
        if ingress >= self._ingresses:
            self._rules.drops["trunk_ingress"] += len(parts.slots)
            return
        width = 3 if is_ipv6 else 1
        slots, frames, wholes, _ = parts
        starts = frames.cumsum() - frames
        owners = self._steps[: len(slots)].repeat(frames)
        descriptors = self._gather(parts, starts, owners, width)
        lengths = LENGTHS.take((descriptors[:, 0] & _LOW).view(np.int64))
        firsts = 8 * width * frames + DATAGRAM_OVERHEAD
        right = np.add.reduceat(lengths, starts) == wholes - firsts
        if np.count_nonzero(right) != len(slots):
            self._rules.drops["trunk_length"] += int(np.count_nonzero(~right))
            if np.count_nonzero(right):
                some = Parts(*(array[right] for array in parts))
                yield from self._deliver_many(ingress, is_ipv6, some, now)
            return
        self._gate.meet(slots.tolist(), now)
        # A payload's place: where its datagram's payloads begin, and what of them came before it.
        places = lengths.cumsum() - lengths
        firsts += slots * self._stride - places[starts]
        places += firsts.take(owners)
        self._rules.frames_down += len(lengths)
        ring = self._ring(ingress, is_ipv6)
        for first in range(0, len(lengths), RING):
            some_frames = slice(first, first + RING)
            chunk = _Chunk(
                ingress, descriptors[some_frames], lengths[some_frames], places[some_frames], owners[some_frames]
            )
            self._note(chunk, parts, now)
            count = len(chunk.lengths)
            names = ring.names[:count]
            np.bitwise_or(chunk.descriptors[:, 0] & _HIGH, np.uint64(ring.family), out=names[:, 0])
            if is_ipv6:
                names[:, 1:] = chunk.descriptors[:, 1:]
            ring.vectors[:count, 0] = chunk.places + self._base
            ring.vectors[:count, 1] = chunk.lengths
            yield Delivery(ingress, ring, count)

    def _gather(self, parts: Parts, starts: _Integers, owners: _Integers, width: int) -> _Words:
        """The descriptors, shape (frames, 1 or 3)."""
        at: _Integers = (parts.slots * (self._stride // 8) + _HEAD_WORDS - width * starts).take(owners)
        at += width * np.arange(len(owners))
        descriptors: _Words = self._word_array.take(at if width == 1 else at.reshape(-1, 1) + _THREE)
        return descriptors.reshape(-1, width)

    def _note(self, chunk: _Chunk, parts: Parts, now: float) -> None:
        """Which flows were heard of, and whether they talk."""
        ingress, descriptors, lengths, places, owners = chunk
        flows = self._rules.flows
        rows = np.empty(len(lengths), np.int64)
        if descriptors.shape[1] == 3:
            keys = np.ascontiguousarray(descriptors.T)
            keys[0] &= _PORT  # no flow label
            keys[0] |= np.uint64(ingress | _WIDE_MARK)
            flows.lookup_wide(keys, rows)
        else:
            flows.lookup((descriptors[:, 0] & _HIGH) | np.uint64(ingress), rows)
        theirs = flows.columns.target.take(rows) == parts.senders.take(owners)
        all_theirs = np.count_nonzero(theirs) == len(rows)
        talks = _TALKS.take(self._bytes_array.take(places, mode="clip"))
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

    def _note_others(self, chunk: _Chunk, parts: Parts, which: _Integers, now: float) -> None:
        mark = chunk.ingress | (_WIDE_MARK if chunk.descriptors.shape[1] == 3 else 0)
        for index in which.tolist():
            word, *rest = chunk.descriptors[index].tolist()
            place, length = int(chunk.places[index]), int(chunk.lengths[index])
            slot = int(parts.slots[chunk.owners[index]])
            self._note_one(_key(word, rest, mark), slot, self._memory[place : place + length], now)

    # ---- one by one

    def _deliver_few(self, count: int, now: float) -> Iterator[Delivery]:
        """Fewer than FEW datagrams of fewer than FEW frames in all."""
        arena, rules, words, memory = self._arena, self._rules, self._words, self._memory
        filled: dict[Group, int] = {}
        for slot in range(count):
            at, size = slot * (self._stride // 8), arena.cells[slot]
            head = words[at]
            frames = LENGTHS_LIST[head >> 32 & 0xFFFF]
            is_ipv6 = bool(head >> 16 & 1)
            width = 3 if is_ipv6 else 1
            first = at + _HEAD_WORDS
            last = first + width * frames
            if not self._gate.is_plain(slot, at, head, 8 * (last - at), size) and not self._gate.is_right_untrusted(
                slot, now
            ):
                continue
            ingress = head >> 24 & 127
            if ingress >= self._ingresses:
                rules.drops["trunk_ingress"] += 1
                continue
            lengths = [LENGTHS_LIST[words[i] & 0xFFFF] for i in range(first, last, width)]
            if 8 * (last - at) + sum(lengths) != size:
                rules.drops["trunk_length"] += 1
                continue
            self._gate.meet([slot], now)
            mark = ingress | (_WIDE_MARK if is_ipv6 else 0)
            ring = self._ring(ingress, is_ipv6)
            vectors, names, family = ring.vector_cells, ring.name_cells, ring.family
            to = filled.get((ingress, is_ipv6), 0)
            place, at = 8 * last, first
            for length in lengths:
                rest = words[at + 1 : at + width].tolist()
                self._note_one(_key(words[at], rest, mark), slot, memory[place : place + length], now)
                vectors[2 * to] = self._base + place
                vectors[2 * to + 1] = length
                names[width * to] = words[at] & _HIGH_BITS | family
                for offset, word in enumerate(rest, width * to + 1):
                    names[offset] = word
                place += length
                at += width
                to += 1
            filled[ingress, is_ipv6] = to
        for (ingress, is_ipv6), done in filled.items():
            rules.frames_down += done
            yield Delivery(ingress, self._ring(ingress, is_ipv6), done)

    def _note_one(self, key: Words, slot: int, payload: memoryview, now: float) -> None:
        flows = self._rules.flows
        cells = flows.cells
        row = flows.find_words(key) if key[0] & _WIDE_MARK else flows.find(key[0])
        target = cells.target[row]
        if target and target == self._gate.sender(slot):
            cells.seen[row] = now
            talk = _TALKS_LIST[payload[0]] if payload else 0
            if talk:
                cells.talked[row] = now if talk == 1 else -math.inf
            return
        source = self._gate.source(slot)
        assert source is not None
        self._rules.learn(row, key, source, payload, now)


def _key(word: int, rest: list[int], mark: int) -> Words:
    """Of the flow that a descriptor names, see relay.index."""
    if rest:
        return word & _PORT_BITS | mark, rest[0], rest[1]
    return word & _HIGH_BITS | mark, 0, 0

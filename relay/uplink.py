"""From clients to transceivers: one batch of one listen address becomes trunk datagrams, and no payload is copied.

    arena   names[i]  lengths[i]  slots[i]     as received
              │          │          └────────────────────────────┐
            key ─▶ row ─▶ transceiver                            │
              └──────────┴─▶ descriptor in `blocks`              │
    ring    header[j] ─▶ [head + descriptors of datagram j] [slot] [slot] [slot] …

1. The first bytes of the batch are looked up in a table, the addresses in the flow table: a media packet of an established
   flow has its transceiver then. 2. Everything else goes the slow way (relay.rules), one by one; the others wait for nobody
   but it. 3. Frames are put in order by transceiver, their own order kept, and cut into datagrams by the MTU. 4. Descriptors,
   heads, and the vectors that name the pieces are written as arrays. 5. Each datagram gets its tag.

Below FEW packets the same is done one by one over the same memory: numpy costs some 10 µs however few they are.
"""

from __future__ import annotations

import socket
from bisect import bisect_right
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from protocol.demux import TRUNK_FIRST_BYTE
from protocol.errors import DecodeError
from protocol.routing import DATAGRAM_OVERHEAD, VERSION, Trunk
from relay.index import Words
from relay.rules import FOREIGN, KINDS, MEDIA, FlowRules
from udpio import ReceiveArena, SendRing

__all__ = ["Uplink"]

# Specification constants: the head of a trunk datagram as a word of the machine (protocol.routing.trunk)

_HEAD = TRUNK_FIRST_BYTE | VERSION << 12
_IPV6_FLAG = 1 << 16
_SIGNED_AT = 9  # what is signed begins here while the datagram's length stands where the tag will

# Implementation constants

FEW = 8  # measured: where both ways cost the same
_SOCKADDR_WORDS = 4
_MAX_LAYOUTS = 512
_SWAPPED = np.arange(65536, dtype=np.uint16).byteswap().astype(np.uint64)  # network order, as a word says it
_COUNTS = _SWAPPED[:1025] << np.uint64(32)
_TOTALS = _SWAPPED << np.uint64(48)
_SWAPPED_LIST: list[int] = _SWAPPED.tolist()
_IS_MEDIA = np.array([kind == MEDIA for kind in KINDS])

_Integers = npt.NDArray[np.int64]
_Group = tuple[int, int, int]
"""Transceiver, first and end of its frames."""


class _Layout(NamedTuple):
    """Where the frames and heads of so many datagrams go."""

    length: int  # of every frame; 0: they differ
    descriptors: _Integers  # by frame: word of `blocks`
    pieces: _Integers  # by frame: vector of the ring
    counts: _Integers  # by datagram, from here on: frames
    blocks: _Integers  # word where its head is
    tags: _Integers  # the next one
    block_pieces: _Integers  # vector of its head and descriptors
    block_addresses: _Integers
    block_lengths: _Integers
    heads: npt.NDArray[np.uint64]
    signed: npt.NDArray[np.uint64]  # what stands in the place of the tag while it is made
    starts: list[int]  # bytes of `blocks` that are signed
    ends: list[int]


class Uplink:
    """`forward_untrusted` fills `ring`, which names the slots of `arena`: send it before the next batch is received."""

    def __init__(
        self, rules: FlowRules, trunk: Trunk, mtu: int, arena: ReceiveArena, ingress: int, trunk_family: int
    ) -> None:
        """`mtu` 0: a datagram for each frame."""
        self._rules, self._trunk, self._arena = rules, trunk, arena
        self._limit = mtu - DATAGRAM_OVERHEAD
        wide = arena.family == socket.AF_INET6
        self._wide = wide
        self._width = width = 3 if wide else 1  # words of a name, a key, a descriptor
        self._overhead = 8 * width
        # The key of a flow is its name with the ingress in the place of the family (relay.index).
        self._change = (ingress | (128 if wide else 0)) - arena.family
        self._to_key = np.uint64(self._change & (1 << 64) - 1)
        self._head = _HEAD | (_IPV6_FLAG if wide else 0) | ingress << 24
        self._heads = np.uint64(self._head) | _COUNTS
        # The first word of a descriptor is that of the name with the length in the place of the family.
        self._descriptors = _SWAPPED - np.uint64(arena.family)
        most = arena.count
        self.ring = SendRing(most, 2 * most, trunk_family)
        self._stride = int(arena.slots.strides[0])
        self._sockaddrs = rules.flows.transceivers.sockaddrs.ctypes.data
        self._bases: list[int] = arena.slot_addresses.tolist()
        self._name_columns = [arena.names[:, column] for column in range(width)]
        self._keys = np.zeros((width, most), np.uint64)
        self._rows = np.zeros(most, np.int64)
        self._targets = np.zeros(most, rules.flows.columns.target.dtype)
        self._blocks = np.zeros((width + 2) * most, np.uint64)
        self._block_address = self._blocks.ctypes.data
        self._block_cells = self._blocks.data
        self._bytes = self._blocks.data.cast("B")
        steps = np.arange(most, dtype=np.int64)
        self._steps = steps
        self._descriptor_at = width * steps + 2
        self._piece_at = steps + 1
        self._vector_bases, self._vector_lengths = self.ring.vectors[:, 0], self.ring.vectors[:, 1]
        self._layouts: dict[tuple[int, int], _Layout] = {}
        self._written: _Layout | None = None  # what vectors and heads say now
        self._aims: list[int] = []  # where the headers point now

    def forward_untrusted(self, count: int, now: float) -> int:
        """The first `count` slots of the arena; returns how many datagrams are in the ring. Never raises for any bytes."""
        if count < FEW:
            return self._forward_few(count, now)
        arena, flows = self._arena, self._rules.flows
        keys, rows, targets = self._keys[:, :count], self._rows[:count], self._targets[:count]
        columns = flows.columns
        names = arena.names[:count]
        np.add(names[:, 0], self._to_key, out=keys[0])
        if self._wide:
            keys[1] = names[:, 1]
            keys[2] = names[:, 2]
            flows.lookup_wide(keys, rows)
        else:
            flows.lookup(keys[0], rows)
        columns.target.take(rows, out=targets, mode="clip")
        np.multiply(targets, _IS_MEDIA.take(arena.slots[:count, 0]), out=targets)
        if arena.is_cut or arena.has_empty:
            lengths = arena.lengths[:count]
            targets[(lengths == 0) | (lengths > arena.slot_size)] = 0
        first = targets.item(0)
        if first and targets.tobytes() == targets[:1].tobytes() * count:  # media for one transceiver, all of it
            self._rules.frames_up += count
            return self._write(None, count, [(first, 0, count)])
        dropped = 0
        if np.count_nonzero(targets) != count:
            for index in np.flatnonzero(targets == 0).tolist():
                targets[index] = self._judge_untrusted(index, now)
            dropped = count - int(np.count_nonzero(targets))
        forwarded = count - dropped
        if not forwarded:
            return 0
        self._rules.frames_up += forwarded
        order = targets.argsort(kind="stable")[dropped:]  # first come those that go nowhere
        targets = targets.take(order)
        ends = [*(np.flatnonzero(targets[1:] != targets[:-1]) + 1).tolist(), forwarded]
        starts = [0, *ends[:-1]]
        return self._write(order, forwarded, list(zip(targets[starts].tolist(), starts, ends)))

    def count_refused(self) -> None:
        """After a `send` of the ring of which the kernel did not take all: those frames went nowhere."""
        headers = self.ring.header_cells
        self._rules.count_refused(up=sum(headers[8 * datagram + 3] - 1 for datagram in self.ring.refused))

    def _write(self, order: _Integers | None, frames: int, groups: list[_Group]) -> int:
        """Frames `order[i]` (all in their order, if None), the groups one after another."""
        arena, ring, blocks = self._arena, self.ring, self._blocks
        layout, aims = self._lay_out(order, frames, groups)
        names = [column[:frames] if order is None else column.take(order) for column in self._name_columns]
        length = layout.length
        if not length or layout is not self._written or order is not None:
            # Else vectors and heads still say what they said after the last batch.
            bases = arena.slot_addresses[:frames] if order is None else arena.slot_addresses.take(order)
            self._vector_bases[layout.pieces] = bases
            if length:
                self._vector_lengths[layout.pieces] = length
            else:
                lengths = arena.lengths[:frames] if order is None else arena.lengths.take(order)
                self._vector_lengths[layout.pieces] = lengths
            self._vector_bases[layout.block_pieces] = layout.block_addresses
            self._vector_lengths[layout.block_pieces] = layout.block_lengths
            blocks[layout.blocks] = layout.heads
            datagrams = len(layout.starts)
            ring.headers[:datagrams, 2] = layout.block_pieces * 16 + ring.vector_address
            ring.headers[:datagrams, 3] = layout.counts + 1
            self._written = layout if order is None else None
        if length:
            blocks[layout.descriptors] = names[0] + self._descriptors[length]
        else:
            blocks[layout.descriptors] = names[0] + self._descriptors.take(lengths)
        if self._wide:
            blocks[layout.descriptors + 1] = names[1]
            blocks[layout.descriptors + 2] = names[2]
        blocks[layout.tags] = layout.signed
        if aims != self._aims:
            self._aims = aims
            ring.headers[: len(aims), 0] = np.array(aims) * (8 * _SOCKADDR_WORDS) + self._sockaddrs
        tags = self._trunk.tags(self._bytes, layout.starts, layout.ends)
        blocks[layout.tags] = np.frombuffer(tags, np.uint64)
        return len(layout.starts)

    # ---- where what goes

    def _lay_out(self, order: _Integers | None, frames: int, groups: list[_Group]) -> tuple[_Layout, list[int]]:
        """The layout, and the transceiver of each datagram. That of a batch of equally long packets is made once."""
        arena = self._arena
        length = arena.length
        bounds: list[int]
        aims: list[int]
        totals: list[int]
        if length:
            if len(groups) == 1 and (layout := self._layouts.get((frames, length))) is not None:
                return layout, [groups[0][0]] * len(layout.starts)
            size = length + self._overhead
            each = max(1, self._limit // size)
            bounds, aims = [], []
            for target, start, end in groups:
                firsts = range(start, end, each)
                bounds += firsts
                aims += [target] * len(firsts)
            bounds.append(frames)
            totals = [(after - first) * size + DATAGRAM_OVERHEAD for first, after in pairwise(bounds)]
            layout = self._make_layout(bounds, totals, length)
            if len(groups) == 1:
                if len(self._layouts) >= _MAX_LAYOUTS:
                    self._layouts.clear()
                self._layouts[frames, length] = layout
            return layout, aims
        lengths = arena.lengths[:frames] if order is None else arena.lengths.take(order)
        limit = self._limit
        sums: list[int] = (lengths + self._overhead).cumsum().tolist()
        bounds, aims, totals = [], [], []
        before = 0
        for target, start, end in groups:
            while start < end:
                bounds.append(start)
                aims.append(target)
                start = bisect_right(sums, before + limit, start + 1, end)
                after = sums[start - 1]
                totals.append(after - before + DATAGRAM_OVERHEAD)
                before = after
        bounds.append(frames)
        return self._make_layout(bounds, totals, 0), aims

    def _make_layout(self, bounds: list[int], totals: list[int], length: int) -> _Layout:
        width = self._width
        limits = np.array(bounds)
        firsts = limits[:-1]
        counts = limits[1:] - firsts
        numbers = self._steps[: len(totals)]
        number = numbers.repeat(counts)
        blocks = width * firsts + 2 * numbers
        heads = self._heads.take(counts)
        starts = 8 * blocks
        lengths = 8 * width * counts + DATAGRAM_OVERHEAD
        return _Layout(
            length=length,
            descriptors=self._descriptor_at[: len(number)] + 2 * number,
            pieces=self._piece_at[: len(number)] + number,
            counts=counts,
            blocks=blocks,
            tags=blocks + 1,
            block_pieces=firsts + numbers,
            block_addresses=starts + self._block_address,
            block_lengths=lengths,
            heads=heads,
            signed=heads | _TOTALS.take(totals),
            starts=(starts + _SIGNED_AT).tolist(),
            ends=(starts + lengths).tolist(),
        )

    # ---- one by one

    def _judge_untrusted(self, index: int, now: float) -> int:
        """The transceiver of a packet that is not plainly media of an established flow; 0 if it is dropped."""
        arena, rules = self._arena, self._rules
        length = arena.cells[index]
        try:
            if length > arena.slot_size:
                raise DecodeError("truncated")
            data = arena.payloads[index][:length]
            words = self._words(index)
            row = rules.flows.find_words(words)
            kind = KINDS[data[0]] if length else FOREIGN
            target = rules.flows.cells.target[row]
            if kind == MEDIA and target:
                return target
            return rules.route_untrusted(kind, data, words, row, now)
        except DecodeError as refused:
            rules.drops[refused.reason] += 1
            return 0

    def _words(self, index: int) -> Words:
        cells, change = self._arena.name_cells, self._change
        if self._wide:
            return cells[3 * index] + change, cells[3 * index + 1], cells[3 * index + 2]
        return cells[index] + change, 0, 0

    def _forward_few(self, count: int, now: float) -> int:
        self._written, self._aims = None, []
        arena, flows = self._arena, self._rules.flows
        names, sizes, memory, stride = arena.name_cells, arena.cells, arena.memory, self._stride
        find, all_targets = flows.find, flows.cells.target
        change, most = self._change, arena.slot_size
        groups: dict[int, list[int]] = {}
        for index in range(count):
            if not self._wide and 0 < sizes[index] <= most and KINDS[memory[stride * index]] == MEDIA:
                target = all_targets[find(names[index] + change)]
            else:
                target = 0
            target = target or self._judge_untrusted(index, now)
            if target:
                self._rules.frames_up += 1
                if target in groups:
                    groups[target].append(index)
                else:
                    groups[target] = [index]
        datagrams = piece = block = 0
        lengths, overhead, limit = sizes, self._overhead, self._limit
        for target, indices in groups.items():
            first = size = 0
            for at, index in enumerate(indices):
                more = lengths[index] + overhead
                if at > first and size + more > limit:
                    block = self._write_one(datagrams, target, indices[first:at], size, piece, block)
                    piece += at - first + 1
                    datagrams += 1
                    first, size = at, 0
                size += more
            block = self._write_one(datagrams, target, indices[first:], size, piece, block)
            piece += len(indices) - first + 1
            datagrams += 1
        return datagrams

    def _write_one(self, number: int, target: int, indices: list[int], size: int, piece: int, block: int) -> int:
        """One datagram into header `number`, vectors from `piece` and words from `block` on; where the next block is."""
        arena, ring, cells = self._arena, self.ring, self._block_cells
        names, lengths, vectors, family = arena.name_cells, arena.cells, ring.vector_cells, arena.family
        bases, width = self._bases, self._width
        at = block + 2
        vector = 2 * piece + 2
        for index in indices:
            length = lengths[index]
            cells[at] = names[width * index] - family + _SWAPPED_LIST[length]
            if width == 3:
                cells[at + 1] = names[3 * index + 1]
                cells[at + 2] = names[3 * index + 2]
            at += width
            vectors[vector] = bases[index]
            vectors[vector + 1] = length
            vector += 2
        head = self._head | _SWAPPED_LIST[len(indices)] << 32
        cells[block] = head
        cells[block + 1] = head | _SWAPPED_LIST[size + DATAGRAM_OVERHEAD] << 48
        start, end = 8 * block, 8 * at
        memory = self._bytes
        memory[start + 8 : start + 16] = self._trunk.tag(memory[start + _SIGNED_AT : end])
        vectors[2 * piece] = self._block_address + start
        vectors[2 * piece + 1] = end - start
        ring.aim(number, self._sockaddrs + 8 * _SOCKADDR_WORDS * target, piece, len(indices) + 1)
        return at

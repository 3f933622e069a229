"""Which trunk datagrams of a batch are frames for us, and who sent them: source, head, tag.

What is not right is dropped before any of it is used, and counted by its reason. Whoever does not know yet that this
worker has begun is to be told (relay.greeter); an announcement of calls makes flows.

The heads of a batch are looked at as words, and their tags are made in one go under the first key. What is not as it
mostly is (another key, another kind, a wrong tag) is looked at once more by itself; the rest of the batch is not held up.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from hmac import compare_digest
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from protocol.address import TransportAddress
from protocol.demux import TRUNK_FIRST_BYTE
from protocol.errors import DecodeError
from protocol.routing import DATAGRAM_OVERHEAD, VERSION, Prefix, Trunk, TrunkKind
from relay.greeter import Greeter
from relay.index import flow_words
from relay.rules import FlowRules
from udpio import ReceiveArena

__all__ = ["LENGTHS", "LENGTHS_LIST", "Group", "Parts", "TrunkGate"]

# Specification constants: the head of a datagram of frames, as a word; what is always the same of it, and where the rest is

_FIXED = TRUNK_FIRST_BYTE | VERSION << 12
_FIXED_BITS = 0xFFFF_0000_80FE_FFFF
_FLAGS_SHIFT, _COUNT_SHIFT, _TOTAL_SHIFT = np.uint64(16), np.uint64(32), np.uint64(48)
_SIGNED_AT = 9  # what is signed begins here while the datagram's length stands in the place of the tag

# Implementation constants

_MAX_SOURCES = 4096  # addresses of transceivers whose judgement is remembered
_LOW, _ONE = np.uint64(0xFFFF), np.uint64(1)
_VECTOR_FIXED, _VECTOR_FIXED_BITS = np.uint64(_FIXED), np.uint64(_FIXED_BITS)
_UNKNOWN, _OUTSIDE = -1, -2  # a transceiver that no flow names; one that is none
LENGTHS = np.arange(65536, dtype=np.uint16).byteswap().astype(np.int64)  # of what two bytes of a word say
LENGTHS_LIST: list[int] = LENGTHS.tolist()
_SWAPPED = LENGTHS.astype(np.uint64)

_Integers = npt.NDArray[np.int64]
Group = tuple[int, bool]
"""Ingress, and whether the addresses are IPv6."""


class Parts(NamedTuple):
    """Genuine datagrams of one group; their lengths are still to be added up."""

    slots: _Integers
    frames: _Integers
    lengths: _Integers
    senders: npt.NDArray[np.int32]  # numbers of the transceivers, below 0 for one that no flow names


class TrunkGate:
    """Over one arena. Slots are those of its last batch."""

    def __init__(
        self,
        rules: FlowRules,
        trunk: Trunk,
        prefix: Prefix,
        arena: ReceiveArena,
        ingresses: int,
        greeter: Greeter,
    ) -> None:
        self._rules, self._trunk, self._arena, self._ingresses = rules, trunk, arena, ingresses
        self._greeter = greeter
        self._contains = prefix.contains
        self._sources: dict[tuple[int, ...], TransportAddress | None] = {}
        self._memory = arena.memory
        self._words = arena.memory.cast("Q")
        self._word_array = np.frombuffer(arena.memory, np.uint64)
        self._steps = np.arange(arena.count)
        self._word_steps = self._steps * (arena.slots.strides[0] // 8)

    def open_untrusted(self, count: int, now: float) -> Iterator[tuple[Group, Parts]]:
        """Heads and tags of a batch."""
        arena, words = self._arena, self._word_array
        lengths = arena.lengths[:count]
        at = self._word_steps[:count]
        heads = words.take(at)
        frames = LENGTHS.take((heads >> _COUNT_SHIFT & _LOW).view(np.int64))
        families = heads >> _FLAGS_SHIFT & _ONE
        bodies = DATAGRAM_OVERHEAD + frames * (8 + 16 * families).view(np.int64)
        good = (heads & _VECTOR_FIXED_BITS) == _VECTOR_FIXED
        good &= (bodies <= lengths) & (lengths <= arena.slot_size) & (frames > 0)
        senders = self._senders(count)
        if senders is None:
            senders = np.array([self.sender(slot) for slot in range(count)], np.int32)
            good &= senders != _OUTSIDE
        tags = words.take(at + 1)
        words[at + 1] = heads | _SWAPPED.take(lengths, mode="clip") << _TOTAL_SHIFT
        starts = 8 * at + _SIGNED_AT
        ends = starts + (bodies - _SIGNED_AT)
        likely = np.flatnonzero(good)
        made = self._trunk.tags(self._memory, starts[likely].tolist(), ends[likely].tolist())
        words[at + 1] = tags
        good[likely] = np.frombuffer(made, np.uint64) == tags[likely]  # words are compared whole: in constant time
        ingresses = (heads >> _FLAGS_SHIFT & _LOW).view(np.int64)  # and the flags
        slots = self._steps[:count]
        if np.count_nonzero(good) != count:
            for slot in np.flatnonzero(~good).tolist():
                good[slot] = self.is_right_untrusted(slot, now)
            slots, frames, lengths, senders = slots[good], frames[good], lengths[good], senders[good]
            ingresses = ingresses[good]
        if not len(slots):
            return
        first = ingresses.item(0)
        if np.count_nonzero(ingresses == first) == len(slots):
            yield (first >> 8, bool(first & 1)), Parts(slots, frames, lengths, senders)
            return
        for each in np.unique(ingresses).tolist():
            same = ingresses == each
            yield (each >> 8, bool(each & 1)), Parts(slots[same], frames[same], lengths[same], senders[same])

    def meet(self, slots: list[int], now: float) -> None:
        """Of genuine datagrams, lengths and all: who sent them may have to be greeted."""
        known = self._greeter.known
        for slot in slots:
            source = self.source(slot)
            if source is not None and source not in known:
                self._greeter.meet(source, self._arena.cells[slot], now)

    def is_right_untrusted(self, slot: int, now: float) -> bool:
        """Whether it is frames for us, or else why it is not; a hello or an announcement is heard."""
        arena = self._arena
        length = arena.cells[slot]
        source = self.source(slot)
        try:
            if source is None:  # even a replayed datagram teaches us nobody outside the prefix
                raise DecodeError("trunk_source")
            if length > arena.slot_size:
                raise DecodeError("truncated")
            head = self._trunk.open_untrusted(arena.payloads[slot][:length])
            if head.ingress >= self._ingresses:
                raise DecodeError("trunk_ingress")
            if head.kind is TrunkKind.FRAMES:
                return True
            announcement = self._greeter.hear_untrusted(head.kind, arena.payloads[slot][:length], source, now)
            if announcement is not None:
                for client in announcement.clients:
                    self._rules.announced(flow_words(client, head.ingress), source, now)
        except DecodeError as refused:
            self._rules.drops[refused.reason] += 1
        return False

    def _senders(self, count: int) -> npt.NDArray[np.int32] | None:
        """If all come from one transceiver, as they often do."""
        names = self._arena.names[:count].tobytes()
        if names != names[: len(names) // count] * count:
            return None
        sender = self.sender(0)
        return None if sender == _OUTSIDE else np.full(count, sender, np.int32)

    def sender(self, slot: int) -> int:
        source = self.source(slot)
        return _OUTSIDE if source is None else self._rules.flows.transceivers.numbers.get(source, _UNKNOWN)

    def source(self, slot: int) -> TransportAddress | None:
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

    def is_plain(self, slot: int, at: int, head: int, body: int, size: int) -> bool:
        """Frames with a tag of our first key, from a transceiver; what is not is looked at again for its reason."""
        if head & _FIXED_BITS != _FIXED or not DATAGRAM_OVERHEAD < body <= size <= self._arena.slot_size:
            return False
        if self.source(slot) is None:
            return False
        words, start = self._words, 8 * at
        tag = words[at + 1]
        words[at + 1] = head | LENGTHS_LIST[size] << 48
        made = self._trunk.tag(self._memory[start + _SIGNED_AT : start + body])
        words[at + 1] = tag
        return compare_digest(made, self._memory[start + 8 : start + 16])

"""A worker's counters in shared memory, so that they outlive it: no total ever goes backwards, whoever is killed.

    block     selector (1 byte), then two slots of equal size
    slot      length (4) | CRC-32 (4) | MessagePack

1. A worker writes all its counters into the slot that the selector does not name, then turns the selector: whoever is
   killed in between leaves the other slot whole. It does so once a second, when asked (at a scrape), and at its end.
2. Its successor begins with what it finds. What a killed worker counted in its last second is lost.
3. The supervisor reads; each block has one writer at a time.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Literal

import msgspec

__all__ = ["LEDGER_SIZE", "Family", "Ledger", "add_up", "open_memory"]

LEDGER_SIZE = 1 << 17  # bytes; 128 listen sockets with their errors take some 40 kB
_SLOT_SIZE = (LEDGER_SIZE - 8) // 2
_HEAD = struct.Struct("=II")


class Family(msgspec.Struct, frozen=True):
    """One family of Prometheus, as plain values; `samples` are label values and the number."""

    name: str
    help: str
    kind: Literal["counter", "gauge"]
    labels: tuple[str, ...]
    samples: list[tuple[tuple[str, ...], float]]


_decoder = msgspec.msgpack.Decoder(list[Family])


def open_memory(name: str, size: int) -> int:
    """A descriptor of `size` zero bytes that processes share; `name` is for /proc."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    else:
        descriptor, path = tempfile.mkstemp()
        os.unlink(path)
    os.ftruncate(descriptor, size)
    return descriptor


class Ledger:
    """One block, mapped."""

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, LEDGER_SIZE)
        self._base: list[Family] = []

    def take_over(self) -> None:
        """We are the writer from now on: what is there is added to all that we write."""
        self._base = [family for family in self.read() if family.kind == "counter"]

    def former(self, name: str) -> list[tuple[tuple[str, ...], float]]:
        """Samples of a counter as they were when we took over."""
        return [sample for family in self._base if family.name == name for sample in family.samples]

    def write(self, families: Sequence[Family]) -> None:
        data = msgspec.msgpack.encode(add_up([self._base, families]))
        if len(data) > _SLOT_SIZE - _HEAD.size:
            return  # cannot be: labels are addresses of ours, reasons and errno names
        slot = 1 - self._memory[0]
        start = 8 + slot * _SLOT_SIZE
        self._memory[start : start + _HEAD.size + len(data)] = _HEAD.pack(len(data), zlib.crc32(data)) + data
        self._memory[0] = slot

    def read(self) -> list[Family]:
        """What was written last; [] when nothing was."""
        selected = self._memory[0]
        for slot in (selected, 1 - selected):  # the writer may have been there twice while we looked
            start = 8 + slot * _SLOT_SIZE
            length, check = _HEAD.unpack_from(self._memory, start)
            data = self._memory[start + _HEAD.size : start + _HEAD.size + min(length, _SLOT_SIZE)]
            if length and zlib.crc32(data) == check:
                with suppress(msgspec.DecodeError):  # another release writes otherwise: then we begin at nothing
                    return _decoder.decode(data)
        return []

    def close(self) -> None:
        self._memory.close()


def add_up(parts: Iterable[Iterable[Family]]) -> list[Family]:
    """Families of the same name become one, samples of the same labels their sum; in the order of first appearance."""
    heads: dict[str, Family] = {}
    sums: dict[str, dict[tuple[str, ...], float]] = {}
    for part in parts:
        for family in part:
            heads.setdefault(family.name, family)
            values = sums.setdefault(family.name, {})
            for labels, value in family.samples:
                values[labels] = values.get(labels, 0) + value
    return [
        Family(head.name, head.help, head.kind, head.labels, list(sums[name].items())) for name, head in heads.items()
    ]

"""How a flow table lies in memory: one block, reserved whole, that says itself what it is.

    0      head     64 words of 8 bytes (the constants below); the magic is written last, so what has it is a whole block
    4096   columns  one flat array a field, each on pages of its own; row 0 of each stands for "no flow" and is never used
           heads    first row of each bucket, by client address
           token_heads  first row of each bucket, by token
           sockaddrs, holders  the transceivers that flows name

Memory that nobody has written to is zero and costs nothing: an empty table, a column that no IPv4 flow uses (`word1`,
`word2`) and room for flows that have yet to come are only address space. So the table never grows, and never pauses to.

All integers are in the machine's own order, since the block never leaves the machine. There is one writer.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from relay.config import MAX_ROWS

__all__ = [
    "ESTABLISHED",
    "FREE",
    "MAX_TRANSCEIVERS",
    "Block",
    "LayoutError",
    "Memory",
    "block_size",
]

Memory: TypeAlias = "mmap.mmap | memoryview | bytearray"

# What the block says of itself

MAGIC = int.from_bytes(b"AntiFlow", "little")
VERSION = 1

# Words of the head
(
    MAGIC_WORD,
    VERSION_WORD,
    SIZE_WORD,
    MAX_FLOWS_WORD,
    MAX_PROBATIONARY_WORD,
    SEQUENCE_WORD,  # odd while the writer changes more than one thing
    HIGH_WORD,  # rows below it have been used at least once
    SPARE_WORD,  # first of the rows that are free again, linked by `link`
    ESTABLISHED_WORD,
    PROBATIONARY_WORD,
    OLDEST_WORD,  # of the probationary rows, in the order of their deadlines, linked by `younger` and `older`
    YOUNGEST_WORD,
    SWEEP_WORD,
    TRANSCEIVERS_WORD,  # slots below it have been used at least once
    FACTORS_WORD,  # four words: factors of the hash
) = range(15)
KEY_OFFSET = 8 * (FACTORS_WORD + 4)  # 32 bytes: key of the hash over USERNAME and token

FREE, PROBATIONARY, ESTABLISHED = range(3)  # `state` of a row

# Implementation constants

SEED_LENGTH = 64
MAX_TRANSCEIVERS = 65535  # a number of two bytes, and 0 is nobody
_BUCKETS_PER_ROW = 2.25  # at least, and rounded up to a power of two: 22-44 % full, so most flows are the first there
_PAGE = 4096
_HEAD_WORDS = 64
ROW_COLUMNS = (
    ("word0", "Q"),
    ("word1", "Q"),
    ("word2", "Q"),
    ("seen", "d"),
    ("talked", "d"),
    ("until", "d"),
    ("username", "Q"),
    ("token", "Q"),
    ("pending_username", "Q"),
    ("pending_token", "Q"),
    ("target", "H"),
    ("pending", "H"),
    ("budget", "I"),
    ("link", "i"),
    ("token_link", "i"),
    ("older", "i"),
    ("younger", "i"),
    ("state", "B"),
)


class LayoutError(ValueError):
    """The memory holds no table, or one of another version or size."""


class _Field(NamedTuple):
    name: str
    code: str  # of struct, memoryview and numpy alike
    offset: int
    length: int


def _fields(max_flows: int, max_probationary: int) -> Iterator[_Field]:
    rows = 1 + max_flows + max_probationary
    offset = _PAGE
    for name, code, count in (
        *((name, code, rows) for name, code in ROW_COLUMNS),
        ("heads", "i", _buckets(rows)),
        ("token_heads", "i", rows),
        ("sockaddrs", "Q", 4 * (1 + MAX_TRANSCEIVERS)),
        ("holders", "i", 1 + MAX_TRANSCEIVERS),
    ):
        yield _Field(name, code, offset, count)
        offset += -(-count * np.dtype(code).itemsize // _PAGE) * _PAGE
    yield _Field("end", "B", offset, 0)


def _buckets(rows: int) -> int:
    return 1 << (math.ceil(_BUCKETS_PER_ROW * rows) - 1).bit_length()


def block_size(max_flows: int, max_probationary: int) -> int:
    """Bytes of address space for a table of so many flows; raises ValueError for bounds that cannot be."""
    if max_flows < 1 or max_probationary < 1 or max_flows + max_probationary > MAX_ROWS:
        raise ValueError("a flow table has at least one flow of each kind, and at most 2³⁰ in all")
    *_, end = _fields(max_flows, max_probationary)
    return end.offset


class Columns:
    """Every field as one numpy array, for many rows at once. The names are those of `Cells`."""

    __slots__ = (
        "budget",
        "heads",
        "holders",
        "link",
        "older",
        "pending",
        "pending_token",
        "pending_username",
        "seen",
        "sockaddrs",
        "state",
        "talked",
        "target",
        "token",
        "token_heads",
        "token_link",
        "until",
        "username",
        "word0",
        "word1",
        "word2",
        "younger",
    )

    word0: npt.NDArray[np.uint64]
    word1: npt.NDArray[np.uint64]
    word2: npt.NDArray[np.uint64]
    seen: npt.NDArray[np.float64]
    talked: npt.NDArray[np.float64]
    until: npt.NDArray[np.float64]
    username: npt.NDArray[np.uint64]
    token: npt.NDArray[np.uint64]
    pending_username: npt.NDArray[np.uint64]
    pending_token: npt.NDArray[np.uint64]
    target: npt.NDArray[np.uint16]
    pending: npt.NDArray[np.uint16]
    budget: npt.NDArray[np.uint32]
    link: npt.NDArray[np.int32]
    token_link: npt.NDArray[np.int32]
    older: npt.NDArray[np.int32]
    younger: npt.NDArray[np.int32]
    state: npt.NDArray[np.uint8]
    heads: npt.NDArray[np.int32]
    token_heads: npt.NDArray[np.int32]
    sockaddrs: npt.NDArray[np.uint64]
    holders: npt.NDArray[np.int32]


class Cells:
    """The same memory as typed views, for one row at a time: reading an element of an array costs three times as much."""

    __slots__ = Columns.__slots__

    word0: memoryview[int]
    word1: memoryview[int]
    word2: memoryview[int]
    seen: memoryview[float]
    talked: memoryview[float]
    until: memoryview[float]
    username: memoryview[int]
    token: memoryview[int]
    pending_username: memoryview[int]
    pending_token: memoryview[int]
    target: memoryview[int]
    pending: memoryview[int]
    budget: memoryview[int]
    link: memoryview[int]
    token_link: memoryview[int]
    older: memoryview[int]
    younger: memoryview[int]
    state: memoryview[int]
    heads: memoryview[int]
    token_heads: memoryview[int]
    sockaddrs: memoryview[int]
    holders: memoryview[int]


class Block:
    """Views of one block: `head` word by word, `columns` and `cells` field by field. Raises LayoutError."""

    __slots__ = ("cells", "columns", "head", "key", "rows")

    def __init__(self, memory: Memory, max_flows: int, max_probationary: int) -> None:
        view: Any = memoryview(memory).cast("B")
        if len(view) < block_size(max_flows, max_probationary):
            raise LayoutError(f"{len(view)} bytes are too few for a table of {max_flows} flows")
        self.rows = 1 + max_flows + max_probationary
        self.head: memoryview[int] = view[: 8 * _HEAD_WORDS].cast("Q")
        self.columns, self.cells = Columns(), Cells()
        for name, code, offset, length in _fields(max_flows, max_probationary):
            if length:
                part = view[offset : offset + length * np.dtype(code).itemsize]
                setattr(self.cells, name, part.cast(code))
                setattr(self.columns, name, np.frombuffer(part, dtype=code))
        self.key = bytes(view[KEY_OFFSET : KEY_OFFSET + 32])

    @classmethod
    def create(cls, memory: Memory, max_flows: int, max_probationary: int, seed: bytes) -> Block:
        """Write the head of a new table. `memory` must be all zero; `seed` is 64 secret bytes."""
        if len(seed) != SEED_LENGTH:
            raise ValueError(f"the seed of a flow table has {SEED_LENGTH} bytes")
        view = memoryview(memory).cast("B")
        view[KEY_OFFSET : KEY_OFFSET + 32] = seed[32:]
        block = cls(memory, max_flows, max_probationary)
        head = block.head
        for index in range(4):
            head[FACTORS_WORD + index] = int.from_bytes(seed[8 * index : 8 * index + 8], "little") | 1
        head[VERSION_WORD] = VERSION
        head[SIZE_WORD] = block_size(max_flows, max_probationary)
        head[MAX_FLOWS_WORD] = max_flows
        head[MAX_PROBATIONARY_WORD] = max_probationary
        head[HIGH_WORD] = head[SWEEP_WORD] = head[TRANSCEIVERS_WORD] = 1
        head[MAGIC_WORD] = MAGIC
        return block

    @classmethod
    def open(cls, memory: Memory) -> Block:
        """The table that is there. Raises LayoutError."""
        view: Any = memoryview(memory).cast("B")
        if len(view) < _PAGE:
            raise LayoutError("too short for a flow table")
        head = view[: 8 * _HEAD_WORDS].cast("Q")
        if head[MAGIC_WORD] != MAGIC:
            raise LayoutError("no flow table")
        if head[VERSION_WORD] != VERSION:
            raise LayoutError(f"a flow table of layout {head[VERSION_WORD]}, not {VERSION}")
        max_flows, max_probationary = head[MAX_FLOWS_WORD], head[MAX_PROBATIONARY_WORD]
        try:
            size = block_size(max_flows, max_probationary)
        except ValueError as error:
            raise LayoutError(str(error)) from None
        if head[SIZE_WORD] != size:
            raise LayoutError(f"a flow table of {head[SIZE_WORD]} bytes that should have {size}")
        return cls(memory, max_flows, max_probationary)

"""Reading a flow out of the table of another worker, while that one goes on writing to it.

When the kernel spreads clients anew over the workers (one more or one less of them), a client's datagrams arrive at a
worker that does not know them. It looks through its siblings' tables once, and takes a copy (`FlowTable.take`).

1. The writer makes `sequence` odd, changes what belongs together, and makes it even again (`relay.rows`).
2. A reader notes an even number, walks the bucket, copies the row, and looks again: only if the number is the same has
   nobody moved what it read. Otherwise it tries again, a few times, and then knows nothing: a flow that is not found is
   learned from the next check or reply.
3. The walk is bounded and every row number checked, since what it reads meanwhile may be anything.

This needs that stores become visible in the order in which they were made. x86 promises that between processes; elsewhere
(Arm), where a reader would need barriers that Python does not have, it finds nothing.
"""

from __future__ import annotations

import platform

from relay.flows import FlowCopy
from relay.index import WIDE, FlowIndex, Words
from relay.layout import ESTABLISHED, SEQUENCE_WORD, Block, Memory
from relay.transceivers import read_transceiver

__all__ = ["SiblingTable"]

# Implementation constants

_TRIES = 8
_STEPS = 64  # rows of one bucket; by chance there are not even ten
_ORDERED = platform.machine() in ("x86_64", "AMD64", "i686")


class SiblingTable:
    """The table in `memory`, to read only. `key` is that of the reader's own digests. Raises LayoutError."""

    __slots__ = ("_block", "_index", "_same_key")

    def __init__(self, memory: Memory, key: bytes) -> None:
        self._block = Block.open(memory, writable=False)
        self._index = FlowIndex(self._block)
        self._same_key = self._block.key == key

    def read_flow(self, words: Words) -> FlowCopy | None:
        """An established flow; None if there is none, or too much happens there just now."""
        head = self._block.head
        for _ in range(_TRIES if _ORDERED else 0):
            before = head[SEQUENCE_WORD]
            if before & 1:
                continue
            copy = self._copy(words)
            if head[SEQUENCE_WORD] == before:
                return copy
        return None

    def _copy(self, words: Words) -> FlowCopy | None:
        cells, rows = self._block.cells, self._block.rows
        row = cells.heads[self._index.bucket(words)]
        for _ in range(_STEPS):
            if not 0 < row < rows:
                return None
            word0 = cells.word0[row]
            if word0 == words[0] and (not word0 & WIDE or (cells.word1[row], cells.word2[row]) == words[1:]):
                break
            row = cells.link[row]
        else:
            return None
        target = read_transceiver(self._block, cells.target[row])
        if cells.state[row] != ESTABLISHED or not target:
            return None
        same = self._same_key
        return FlowCopy(
            words,
            target,
            cells.username[row] if same else 0,
            cells.token[row] if same else 0,
            cells.seen[row],
            cells.talked[row],
        )

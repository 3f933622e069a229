"""Rows of the flow table, whatever the rules: taking one, giving it back, what links them, and mending all that.

Being killed. Whatever changes more than one field is done between `_begin` and `_end`: `sequence` in the block is odd
meanwhile. Who attaches and finds it even has a whole table, at once. Who finds it odd (and so does a worker whose own
change was interrupted by an exception) rebuilds everything else from the rows alone: `state` is written after all other
fields of a new row and before anything else of one that goes, so a row with a state is a whole flow.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from relay.index import WIDE, Chains, FlowIndex, Words
from relay.layout import (
    ESTABLISHED,
    ESTABLISHED_WORD,
    FREE,
    HIGH_WORD,
    OLDEST_WORD,
    PROBATIONARY,
    PROBATIONARY_WORD,
    SEQUENCE_WORD,
    SPARE_WORD,
    YOUNGEST_WORD,
    Block,
    Cells,
    Columns,
)
from relay.transceivers import Transceivers

__all__ = ["FlowRows"]


class FlowRows:
    """See `relay.flows.FlowTable`, which adds the rules."""

    def __init__(self, block: Block) -> None:
        self._block = block
        self._head = block.head
        self._key = block.key
        self._sequence = block.head[SEQUENCE_WORD]
        self.columns: Columns = block.columns
        self.cells: Cells = block.cells
        self.transceivers = Transceivers(block)
        self._index = FlowIndex(block)
        self._tokens = Chains(
            block.cells.token_heads, block.cells.token_link, block.columns.token_heads, block.columns.token_link
        )
        # Without a call in between: these are asked for every packet.
        self.find: Callable[[int], int] = self._index.find
        self.find_words: Callable[[Words], int] = self._index.find_words
        self.lookup: Callable[[npt.NDArray[np.uint64], npt.NDArray[np.int64]], None] = self._index.lookup
        self.lookup_wide: Callable[[npt.NDArray[np.uint64], npt.NDArray[np.int64]], None] = self._index.lookup_wide
        if self._sequence & 1:
            self._heal()

    def words(self, row: int) -> Words:
        """The key of a flow."""
        cells = self.cells
        word0 = cells.word0[row]
        return (word0, cells.word1[row], cells.word2[row]) if word0 & WIDE else (word0, 0, 0)

    def _new_row(self, words: Words, now: float) -> int:
        """A row with its key, all else cleared. It is no flow before its state is written."""
        cells, head = self.cells, self._head
        row = head[SPARE_WORD]
        if row:
            head[SPARE_WORD] = cells.link[row]
        else:
            row = head[HIGH_WORD]
            head[HIGH_WORD] = row + 1
        cells.word0[row] = words[0]
        if words[0] & WIDE:
            cells.word1[row] = words[1]
            cells.word2[row] = words[2]
        cells.seen[row] = now
        cells.talked[row] = -math.inf
        cells.username[row] = 0
        cells.target[row] = 0
        cells.pending[row] = 0
        return row

    def _remove(self, row: int) -> None:
        cells, head = self.cells, self._head
        state = cells.state[row]
        cells.state[row] = FREE
        self._index.remove(row, self.words(row))
        self._remove_token(row)
        if state == PROBATIONARY:
            self._remove_probationary(row)
            head[PROBATIONARY_WORD] -= 1
        else:
            head[ESTABLISHED_WORD] -= 1
        self.transceivers.release(cells.target[row])
        self.transceivers.release(cells.pending[row])
        cells.link[row] = head[SPARE_WORD]
        head[SPARE_WORD] = row

    def _remove_all(self, rows: npt.NDArray[np.int64]) -> None:
        """Rows of one kind; who calls keeps the order of the probationary ones and the counts."""
        columns = self.columns
        columns.state[rows] = FREE
        self._index.remove_free(rows)
        tokens = columns.token[rows]
        tokens = tokens[tokens != 0]
        if len(tokens):
            self._tokens.remove_free(self._token_buckets(tokens), columns.state)
        for numbers in (columns.target, columns.pending):
            self.transceivers.release_all(numbers[rows])
        columns.link[rows[:-1]] = rows[1:]
        columns.link[rows[-1]] = self._head[SPARE_WORD]
        self._head[SPARE_WORD] = int(rows[0])

    # ---- probationary flows in the order of their deadlines

    def _add_youngest(self, row: int) -> None:
        cells, head = self.cells, self._head
        before = head[YOUNGEST_WORD]
        cells.older[row] = before
        cells.younger[row] = 0
        if before:
            cells.younger[before] = row
        else:
            head[OLDEST_WORD] = row
        head[YOUNGEST_WORD] = row

    def _remove_probationary(self, row: int) -> None:
        cells, head = self.cells, self._head
        older, younger = cells.older[row], cells.younger[row]
        if older:
            cells.younger[older] = younger
        else:
            head[OLDEST_WORD] = younger
        if younger:
            cells.older[younger] = older
        else:
            head[YOUNGEST_WORD] = older

    # ---- flows of one token

    def _token_bucket(self, token: int) -> int:
        return (token >> 32) * self._tokens.buckets >> 32  # it is a hash already

    def _token_buckets(self, tokens: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        shift = np.uint64(32)
        return ((tokens >> shift) * np.uint64(self._tokens.buckets) >> shift).view(np.int64)

    def _add_token(self, row: int) -> None:
        token = self.cells.token[row]
        if token:
            self._tokens.add(self._token_bucket(token), row)

    def _remove_token(self, row: int) -> None:
        token = self.cells.token[row]
        if token:
            self._tokens.remove(self._token_bucket(token), row)

    # ---- changes that must be whole

    def _begin(self) -> None:
        if self._sequence & 1:  # an exception has interrupted the last change
            self._heal()
        self._sequence += 1
        self._head[SEQUENCE_WORD] = self._sequence

    def _end(self) -> None:
        self._sequence += 1
        self._head[SEQUENCE_WORD] = self._sequence

    def _heal(self) -> None:
        """Everything else from the rows that have a state; 10⁶ rows take about a tenth of a second."""
        columns, head = self.columns, self._head
        high = head[HIGH_WORD] = min(head[HIGH_WORD], self._block.rows)
        self.transceivers.reload()
        state = columns.state[1:high]
        target, pending = columns.target[1:high], columns.pending[1:high]
        state[(state == PROBATIONARY) & (target != 0)] = ESTABLISHED  # it was about to be
        live = 1 + np.flatnonzero(state != FREE)
        established = live[columns.state[live] == ESTABLISHED]
        probationary = live[columns.state[live] == PROBATIONARY]
        self._index.rebuild(live)
        linked = live[columns.token[live] != 0]
        self._tokens.rebuild(linked, self._token_buckets(columns.token[linked]))
        head[ESTABLISHED_WORD], head[PROBATIONARY_WORD] = len(established), len(probationary)
        order = probationary[np.argsort(columns.until[probationary], kind="stable")]
        columns.older[order[1:]], columns.younger[order[:-1]] = order[:-1], order[1:]
        head[OLDEST_WORD] = head[YOUNGEST_WORD] = 0
        if len(order):
            columns.older[order[0]] = columns.younger[order[-1]] = 0
            head[OLDEST_WORD], head[YOUNGEST_WORD] = int(order[0]), int(order[-1])
        free = 1 + np.flatnonzero(state == FREE)
        columns.link[free[:-1]] = free[1:]
        if len(free):
            columns.link[free[-1]] = 0
        head[SPARE_WORD] = int(free[0]) if len(free) else 0
        self.transceivers.recount(np.concatenate((target[live - 1], pending[live - 1])))
        self._sequence += 1
        head[SEQUENCE_WORD] = self._sequence

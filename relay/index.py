"""From a client's address to the row of its flow: buckets of linked rows, for one key or for a batch.

`heads[bucket]` is the first row of a bucket, `links[row]` the next one, 0 ends it. So a row is found by everybody until it
is taken out, taking one out moves no other, nothing is left where it was, and nothing is ever hashed again.

The bucket of a client is `mix(word0·a + word1·b + word2·c)`, with secret odd factors drawn at start. Multiply-shift is
universal: two addresses that were chosen without knowledge of the factors share a bucket about as rarely as by chance
(Dietzfelbinger et al., 1997), and with chains that alone bounds the expected cost of a look-up. The second factor breaks
up rows of addresses that differ by one step, which a single product spreads evenly or, rarely, very unevenly.
"""

from __future__ import annotations

import sys

import numpy as np
import numpy.typing as npt

from protocol.address import TransportAddress
from relay.layout import FACTORS_WORD, FREE, Block

__all__ = ["MAX_BATCH", "WIDE", "Chains", "FlowIndex", "Words", "flow_words"]

Words = tuple[int, int, int]
"""The key of a flow: a socket address as it lies in memory, with the ingress where its family was."""

# Implementation constants

WIDE = int.from_bytes(b"\x80" + bytes(7), sys.byteorder)  # this bit of the first word says IPv6
_MASK = (1 << 64) - 1
MAX_BATCH = 1024
_FEW = 8  # so many last ones of a batch are followed one by one
_HALF = np.uint64(32)

_Rows = npt.NDArray[np.int64]


def flow_words(client: TransportAddress, ingress: int) -> Words:
    """6 or 18 bytes, 0-127 → the key.

    IPv4: the first 8 bytes of sockaddr_in with `ingress, 0` instead of the family, and two words of 0. IPv6: the first
    24 bytes of sockaddr_in6 with `ingress | 128, 0` instead of the family and 0 for the flow label. So a batch of
    received socket addresses becomes keys by one addition to their first words.
    """
    if len(client) == 6:
        return int.from_bytes(bytes((ingress, 0)) + client, sys.byteorder), 0, 0
    raw = bytes((ingress | 128, 0)) + client[:2] + bytes(4) + client[2:]
    word0, word1, word2 = memoryview(raw).cast("Q")
    return word0, word1, word2


class Chains:
    """Rows linked by bucket: `heads` and `links` are arrays in the block."""

    __slots__ = ("_heads", "_heads_array", "_links", "_links_array", "buckets")

    def __init__(
        self,
        heads: memoryview[int],
        links: memoryview[int],
        heads_array: npt.NDArray[np.int32],
        links_array: npt.NDArray[np.int32],
    ) -> None:
        self.buckets = len(heads)
        self._heads, self._links = heads, links
        self._heads_array, self._links_array = heads_array, links_array

    def add(self, bucket: int, row: int) -> None:
        """The row can be found from the last of these two writes on."""
        self._links[row] = self._heads[bucket]
        self._heads[bucket] = row

    def remove(self, bucket: int, row: int) -> None:
        """Take one row out; its own link stays, so that who stands on it still finds the others."""
        links = self._links
        at = self._heads[bucket]
        if at == row:
            self._heads[bucket] = links[row]
            return
        while at:
            after = links[at]
            if after == row:
                links[at] = links[row]
                return
            at = after

    def remove_free(self, buckets: _Rows, state: npt.NDArray[np.uint8]) -> None:
        """Take every row that is free by now out of these buckets; one step along all of them at a time.

        A bucket may be named twice: both then take the same steps.
        """
        heads, links = self._heads_array, self._links_array
        at = heads[buckets].astype(np.int64)
        after = links[at].astype(np.int64)
        free = state[at] == FREE
        heads[buckets[free]] = after[free]
        on = after.nonzero()[0]  # few buckets have more than one
        lanes, before, at = buckets[on], np.where(free[on], 0, at[on]), after[on]
        while len(lanes):  # `before` is the last row that stays; 0 while the head itself is to be set
            after = links[at].astype(np.int64)
            free = state[at] == FREE
            first = before == 0
            heads[lanes[free & first]] = after[free & first]
            links[before[free & ~first]] = after[free & ~first]
            before = np.where(free, before, at)
            on = after.nonzero()[0]
            lanes, before, at = lanes[on], before[on], after[on]

    def rows(self) -> _Rows:
        """All that are linked, in no order that means anything."""
        at = self._heads_array[self._heads_array != 0]
        found = [at]
        while len(at):
            at = self._links_array[at]
            at = at[at != 0]
            found.append(at)
        return np.concatenate(found).astype(np.int64)

    def rebuild(self, rows: _Rows, buckets: _Rows) -> None:
        """From nothing but the rows and their buckets. Of rows that meet in one bucket, one is put in at a time."""
        heads, links = self._heads_array, self._links_array
        heads.fill(0)
        while len(rows):
            before = heads[buckets]
            heads[buckets] = rows  # who writes last is in
            inside = heads[buckets] == rows
            links[rows[inside]] = before[inside]
            rows, buckets = rows[~inside], buckets[~inside]


class _Scratch:
    """Arrays for a batch, made once for each length."""

    __slots__ = ("buckets", "first", "hash", "key", "miss", "shifted")

    def __init__(self, length: int, base: _Scratch | None = None) -> None:
        self.hash: npt.NDArray[np.uint64] = np.zeros(length, np.uint64) if base is None else base.hash[:length]
        self.shifted: npt.NDArray[np.uint64] = np.zeros(length, np.uint64) if base is None else base.shifted[:length]
        self.first: npt.NDArray[np.int32] = np.zeros(length, np.int32) if base is None else base.first[:length]
        self.key: npt.NDArray[np.uint64] = np.zeros(length, np.uint64) if base is None else base.key[:length]
        self.miss: npt.NDArray[np.bool_] = np.zeros(length, np.bool_) if base is None else base.miss[:length]
        self.buckets = self.hash.view(np.int64)


class FlowIndex:
    """The chains by client address, with `find` for one and `lookup` for many."""

    __slots__ = (
        "_a",
        "_b",
        "_base",
        "_c",
        "_cells",
        "_chains",
        "_columns",
        "_factors",
        "_heads",
        "_links",
        "_mix",
        "_scratch",
        "_shift",
        "_vector_shift",
        "_word0",
    )

    def __init__(self, block: Block) -> None:
        cells, columns = block.cells, block.columns
        self._cells, self._columns = cells, columns
        self._heads, self._links, self._word0 = cells.heads, cells.link, cells.word0
        self._chains = Chains(cells.heads, cells.link, columns.heads, columns.link)
        self._shift = 65 - self._chains.buckets.bit_length()  # the upper bits are the best mixed
        self._vector_shift = np.uint64(self._shift)
        a, mix, b, c = block.head[FACTORS_WORD : FACTORS_WORD + 4]
        self._a, self._mix, self._b, self._c = a, mix, b, c
        self._factors = (np.uint64(a), np.uint64(mix), np.uint64(b), np.uint64(c))
        self._base = _Scratch(MAX_BATCH)
        self._scratch: dict[int, _Scratch] = {}

    def bucket(self, words: Words) -> int:
        x = words[0] * self._a + words[1] * self._b + words[2] * self._c & _MASK
        return ((x ^ x >> 32) * self._mix & _MASK) >> self._shift

    def find(self, word: int) -> int:
        """The row of an IPv4 flow; 0 if there is none."""
        x = word * self._a & _MASK
        row = self._heads[((x ^ x >> 32) * self._mix & _MASK) >> self._shift]
        keys = self._word0
        while row and keys[row] != word:
            row = self._links[row]
        return row

    def find_words(self, words: Words) -> int:
        """The row of a flow of either family; 0 if there is none."""
        word0, word1, word2 = words
        if not word0 & WIDE:
            return self.find(word0)
        cells = self._cells
        row = cells.heads[self.bucket(words)]
        while row and not (cells.word0[row] == word0 and cells.word1[row] == word1 and cells.word2[row] == word2):
            row = cells.link[row]
        return row

    def lookup(self, words: npt.NDArray[np.uint64], rows: _Rows) -> None:
        """Rows of IPv4 flows: shape (n,) → (n,), 0 where there is none; n is at most MAX_BATCH."""
        scratch = self._hash(len(words), words, None, None)
        columns = self._columns
        columns.heads.take(scratch.buckets, out=scratch.first, mode="clip")
        np.copyto(rows, scratch.first)
        columns.word0.take(rows, out=scratch.key, mode="clip")
        miss = scratch.miss
        np.not_equal(scratch.key, words, out=miss)
        (at,) = miss.nonzero()
        if len(at):
            self._follow(at, words, None, None, rows)

    def lookup_wide(self, words: npt.NDArray[np.uint64], rows: _Rows) -> None:
        """Rows of IPv6 flows: shape (3, n) → (n,), 0 where there is none; n is at most MAX_BATCH."""
        word0, word1, word2 = words
        scratch = self._hash(len(word0), word0, word1, word2)
        columns = self._columns
        columns.heads.take(scratch.buckets, out=scratch.first, mode="clip")
        np.copyto(rows, scratch.first)
        miss = columns.word0.take(rows) != word0
        miss |= columns.word1.take(rows) != word1
        miss |= columns.word2.take(rows) != word2
        (at,) = miss.nonzero()
        if len(at):
            self._follow(at, word0, word1, word2, rows)

    def add(self, row: int, words: Words) -> None:
        self._chains.add(self.bucket(words), row)

    def remove(self, row: int, words: Words) -> None:
        self._chains.remove(self.bucket(words), row)

    def remove_free(self, rows: _Rows) -> None:
        """Rows whose state says that they are free."""
        self._chains.remove_free(self._buckets_of(rows), self._columns.state)

    def rebuild(self, rows: _Rows) -> None:
        """Put in exactly these rows."""
        self._chains.rebuild(rows, self._buckets_of(rows))

    # ---- hashing

    def _buckets_of(self, rows: _Rows) -> _Rows:
        columns = self._columns
        scratch = _Scratch(len(rows))
        word0 = columns.word0[rows]
        if (word0 & np.uint64(WIDE)).any():  # in rows of IPv4 flows the other words are whatever they were
            wide = (word0 & np.uint64(WIDE)) != 0
            self._hash_into(scratch, word0, columns.word1[rows] * wide, columns.word2[rows] * wide)
        else:
            self._hash_into(scratch, word0, None, None)
        return scratch.buckets

    def _hash(
        self,
        length: int,
        word0: npt.NDArray[np.uint64],
        word1: npt.NDArray[np.uint64] | None,
        word2: npt.NDArray[np.uint64] | None,
    ) -> _Scratch:
        scratch = self._scratch.get(length)
        if scratch is None:
            if length > MAX_BATCH:
                raise ValueError(f"a batch has at most {MAX_BATCH} keys")
            scratch = self._scratch[length] = _Scratch(length, self._base)
        self._hash_into(scratch, word0, word1, word2)
        return scratch

    def _hash_into(
        self,
        scratch: _Scratch,
        word0: npt.NDArray[np.uint64],
        word1: npt.NDArray[np.uint64] | None,
        word2: npt.NDArray[np.uint64] | None,
    ) -> None:
        a, mix, b, c = self._factors
        x, shifted = scratch.hash, scratch.shifted
        np.multiply(word0, a, out=x)
        if word1 is not None and word2 is not None:
            x += word1 * b
            x += word2 * c
        np.right_shift(x, _HALF, out=shifted)
        np.bitwise_xor(x, shifted, out=x)
        np.multiply(x, mix, out=x)
        np.right_shift(x, self._vector_shift, out=x)

    def _follow(
        self,
        at: _Rows,
        word0: npt.NDArray[np.uint64],
        word1: npt.NDArray[np.uint64] | None,
        word2: npt.NDArray[np.uint64] | None,
        rows: _Rows,
    ) -> None:
        """Those of a batch (`at`) whose bucket begins with another flow, or is empty: one link further at a time."""
        columns, cells = self._columns, self._cells
        while True:
            row = columns.link.take(rows[at]).astype(np.int64)
            rows[at] = row
            miss = columns.word0.take(row) != word0.take(at)
            if word1 is not None and word2 is not None:
                miss |= columns.word1.take(row) != word1.take(at)
                miss |= columns.word2.take(row) != word2.take(at)
            at = at[miss]
            if len(at) <= _FEW:
                break
            at = at[rows[at] != 0]
        for lane in at.tolist():
            found, word = int(rows[lane]), int(word0[lane])
            if word1 is None or word2 is None:
                while found and cells.word0[found] != word:
                    found = cells.link[found]
            else:
                rest = int(word1[lane]), int(word2[lane])
                while found and not (cells.word0[found] == word and (cells.word1[found], cells.word2[found]) == rest):
                    found = cells.link[found]
            rows[lane] = found

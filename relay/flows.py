"""The flow table: which transceiver a client's datagrams go to. A cache, bounded, learned again when lost.

    nothing ──STUN with a good token──▶ probationary ──reply of that transceiver──▶ established ──idle──▶ nothing
                                             └──time──▶ nothing

A probationary flow has only a `pending` transceiver: STUN within a byte budget goes there. An established flow has a
`target`; a STUN that names another transceiver gives it a `pending` one beside, which becomes the target when it has
answered, and not before, nor while the present one talks. Both kinds have their own bound: probationary flows cost an
attacker with one good token only a spoofed address each, so they can never crowd out established ones. Who has a call of
his own can have checks answered from as many addresses as he likes; so each token has only so many flows of either kind,
and a further one takes the place of that token's own flow to which its transceiver has said nothing for longest.

A flow is a row of flat arrays (`relay.layout`), found by `relay.index`; there is no object for it. One table serves all
listen addresses of a worker: the key of a flow (`flow_words`) contains the ingress.

    table = FlowTable.create(memory, …)   a new table; without memory, private to this process
    table = FlowTable.attach(memory, …)   goes on with what another process, perhaps a killed one, has left there
    rows = table.find(word), table.find_words(words), table.lookup(words, rows), table.lookup_wide(words, rows)
    table.cells.target[row]               one field of one flow
    table.columns.target.take(rows)       the same of many

Row 0 is no flow: `target` and `pending` of it are 0, which is no transceiver. What a packet changes (`seen`, `talked`,
`budget`) the packet path writes itself into `cells` and `columns`; everything else is changed here, and only here.

`now` is to be CLOCK_MONOTONIC (`time.monotonic()`) where several processes share a table: the same for all of a machine.
"""

from __future__ import annotations

import math
import mmap
import secrets
from hashlib import blake2s
from typing import NamedTuple

import numpy as np

from protocol.address import TransportAddress
from relay.index import Words
from relay.layout import (
    ESTABLISHED,
    ESTABLISHED_WORD,
    FREE,
    HIGH_WORD,
    MAX_FLOWS_WORD,
    MAX_PROBATIONARY_WORD,
    OLDEST_WORD,
    PROBATIONARY,
    PROBATIONARY_WORD,
    ROW_COLUMNS,
    SEED_LENGTH,
    SWEEP_WORD,
    TRANSCEIVERS_WORD,
    YOUNGEST_WORD,
    Block,
    Memory,
    block_size,
)
from relay.rows import FlowRows

__all__ = ["FlowTable", "Proposal"]

# Implementation constants: a slice of expiry must not hold the packet loop for a millisecond

_SLICE_ROWS = 65536  # looked at
_SLICE_REMOVALS = 3584  # taken out
_RECLAIM_ROWS = 4096
_RECLAIM_PAUSE = 0.001  # seconds after a look in vain
_RECLAIM_SILENCE = (
    30.0  # a transceiver answers checks every few seconds, and ends its call so long after the last (RFC 7675 §5.1)
)


class Proposal(NamedTuple):
    """A STUN named a transceiver that has yet to answer."""

    target: TransportAddress
    username: int  # see FlowTable.digest
    token: int
    budget: int  # bytes that may go there meanwhile
    until: float


class FlowTable(FlowRows):
    """Rows, the index over them, and all rules by which flows come, move and go."""

    def __init__(self, block: Block, *, max_per_token: int, idle: float) -> None:
        """Use `create` or `attach`."""
        super().__init__(block)
        self._max_flows = block.head[MAX_FLOWS_WORD]
        self._max_probationary = block.head[MAX_PROBATIONARY_WORD]
        self._max_per_token = max_per_token
        self._idle = idle
        self._hand = 1  # where the next `reclaim` begins
        self._vain_at = -math.inf
        self.expired = 0  # since this process has the table
        self.lapsed = 0
        self.evicted = 0

    @staticmethod
    def size(max_flows: int, max_probationary: int) -> int:
        """Bytes that `create` needs."""
        return block_size(max_flows, max_probationary)

    @classmethod
    def create(
        cls,
        memory: Memory | None = None,
        *,
        max_flows: int,
        max_probationary: int,
        max_per_token: int,
        idle: float,
        seed: bytes | None = None,
    ) -> FlowTable:
        """A new table in memory that is all zero (a fresh memfd, say). Without memory it takes its own.

        `seed` is 64 secret bytes, drawn here if not given. The second half is the key of the digests: tables that take
        flows from each other have the same.
        """
        if memory is None:
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
            memory = mmap.mmap(-1, block_size(max_flows, max_probationary), flags=flags)
        block = Block.create(memory, max_flows, max_probationary, seed or secrets.token_bytes(SEED_LENGTH))
        return cls(block, max_per_token=max_per_token, idle=idle)

    @classmethod
    def attach(cls, memory: Memory, *, max_per_token: int, idle: float) -> FlowTable:
        """Go on with the table in `memory`, whose writer is gone. Raises LayoutError: then clear it and create one."""
        return cls(Block.open(memory), max_per_token=max_per_token, idle=idle)

    # ---- looking

    @property
    def key(self) -> bytes:
        """Of the digests."""
        return self._key

    @property
    def max_flows(self) -> int:
        return self._max_flows

    @property
    def max_probationary(self) -> int:
        return self._max_probationary

    @property
    def established(self) -> int:
        return self._head[ESTABLISHED_WORD]

    @property
    def probationary(self) -> int:
        return self._head[PROBATIONARY_WORD]

    @property
    def tokens(self) -> int:
        """How many different tokens have flows. Looks at every bucket: for tests and for people."""
        rows = self._tokens.rows()
        return len(np.unique(self.columns.token[rows]))

    def is_full(self) -> bool:
        return self._head[ESTABLISHED_WORD] >= self._max_flows

    def digest(self, name: bytes) -> int:
        """What a row keeps of a USERNAME or token: 64 bits of BLAKE2s under a key of this boot; never 0.

        A collision is no way in. Names are compared only with those of one flow, so who wants his STUN taken for what the
        flow has already been judged for must hit one of two values in 2⁶⁴ blindly, packet by packet, and has won that his
        check goes where that flow's media goes: the transceiver judges its MESSAGE-INTEGRITY as it does with all others.
        Two tokens that collide share one bound.
        """
        return int.from_bytes(blake2s(name, key=self._key, digest_size=8).digest(), "little") or 1

    # ---- what happens to a flow

    def open(self, words: Words, proposal: Proposal, now: float) -> int:
        """A new probationary flow, at the cost of the oldest one if there are too many; its row.

        0 if so many transceivers are in use that this one has no place. There must be no flow with this key.
        """
        self._begin()
        pending = self.transceivers.hold(proposal.target)
        if pending:
            self._make_room(proposal.token, PROBATIONARY)
            if self._head[PROBATIONARY_WORD] >= self._max_probationary:
                self._evict(self._head[OLDEST_WORD])
            row = self._new_row(words, now)
            self._write_proposal(row, pending, proposal)
            self.cells.token[row] = proposal.token
            self.cells.state[row] = PROBATIONARY
            self._index.add(row, words)
            self._add_token(row)
            self._add_youngest(row)
            self._head[PROBATIONARY_WORD] += 1
        else:
            row = 0
        self._end()
        return row

    def propose(self, row: int, proposal: Proposal) -> bool:
        """For a flow that there is. The last one named counts: no proposal blocks another.

        A probationary flow is the youngest again. False if there is no place for that transceiver: nothing has changed.
        """
        self._begin()
        pending = self.transceivers.hold(proposal.target)
        if pending:
            before = self.cells.pending[row]
            self.cells.pending[row] = 0
            self.transceivers.release(before)
            self._write_proposal(row, pending, proposal)
            if self.cells.state[row] == PROBATIONARY:
                self._remove_probationary(row)
                self._add_youngest(row)
                self._count_for(row, proposal.token)
        self._end()
        return pending != 0

    def establish(self, row: int, target: TransportAddress, now: float) -> bool:
        """The transceiver answered: it is the target. False if the table is full: nothing has changed."""
        cells = self.cells
        probationary = cells.state[row] == PROBATIONARY
        if probationary and self.is_full():
            return False
        self._begin()
        number = self.transceivers.hold(target)
        if number:
            proposed = cells.pending[row] == number
            username = cells.pending_username[row] if proposed else 0
            token = cells.pending_token[row] if proposed else cells.token[row]
            before, pending = cells.target[row], cells.pending[row]
            cells.username[row] = 0  # never that of another transceiver
            cells.target[row] = number
            cells.username[row] = username
            cells.pending[row] = 0
            cells.talked[row] = -math.inf
            cells.seen[row] = now
            self.transceivers.release(before)
            self.transceivers.release(pending)
            if probationary:
                cells.state[row] = ESTABLISHED
                self._remove_probationary(row)
                self._head[PROBATIONARY_WORD] -= 1
                self._head[ESTABLISHED_WORD] += 1
            self._count_for(row, token)
        self._end()
        return number != 0

    def adopt(self, row: int, username: int, token: int) -> None:
        """An established flow carries another USERNAME with a good token for the same transceiver.

        Nobody has answered yet: it goes on to count for the token by which it was established, if we know that. Else who
        forges a check of his own call from this address could have it make room for flows of his.
        """
        self._begin()
        self.cells.username[row] = username
        if not self.cells.token[row]:
            self._count_for(row, token)
        self._end()

    def learn(self, words: Words, target: TransportAddress, now: float) -> int:
        """An established flow that a reply proves; its row, 0 if the table is full. There must be none with this key."""
        if self.is_full():
            return 0
        self._begin()
        number = self.transceivers.hold(target)
        row = 0
        if number:
            row = self._new_row(words, now)
            cells = self.cells
            cells.talked[row] = -math.inf
            cells.target[row] = number
            cells.username[row] = cells.token[row] = 0
            cells.state[row] = ESTABLISHED
            self._index.add(row, words)
            self._head[ESTABLISHED_WORD] += 1
        self._end()
        return row

    def inherit(self, other: FlowTable) -> None:
        """Instead of our own flows, those of a table with other bounds and the same key; if too many, the latest ones."""
        theirs, ours = other.columns, self.columns
        used = other._head[HIGH_WORD]
        established = np.flatnonzero(theirs.state[:used] == ESTABLISHED)
        probationary = np.flatnonzero(theirs.state[:used] == PROBATIONARY)
        established = established[np.argsort(-theirs.seen[established], kind="stable")[: self._max_flows]]
        probationary = probationary[np.argsort(-theirs.until[probationary], kind="stable")[: self._max_probationary]]
        rows = np.concatenate((established, probationary))
        self._begin()
        for name, _ in ROW_COLUMNS:
            getattr(ours, name)[1 : 1 + len(rows)] = getattr(theirs, name)[rows]
        ours.state[1 + len(rows) : self._head[HIGH_WORD]] = FREE
        ours.sockaddrs[:] = theirs.sockaddrs
        self._head[TRANSCEIVERS_WORD] = other._head[TRANSCEIVERS_WORD]
        self._head[HIGH_WORD] = max(self._head[HIGH_WORD], 1 + len(rows))
        self._heal()  # only rows and addresses have come: the rest follows from them

    def expire(self, now: float) -> bool:
        """Forget what is over; bounded work. False while a sweep has more to look at: call again soon."""
        lapsed = self._expire_probationary(now)
        return self._expire_established(now) and lapsed

    def reclaim(self, now: float) -> bool:
        """For a full table: forget an established flow whose transceiver is silent since its consent must have expired."""
        # The next rows are looked at, in bounded time and not for each packet; the next call goes on behind them.
        if now - self._vain_at < _RECLAIM_PAUSE:
            return False
        columns, high = self.columns, self._head[HIGH_WORD]
        first = self._hand if self._hand < high else 1
        last = min(first + _RECLAIM_ROWS, high)
        silent = (columns.seen[first:last] <= now - _RECLAIM_SILENCE) & (columns.state[first:last] == ESTABLISHED)
        found = np.flatnonzero(silent)
        self._hand = first + int(found[0]) + 1 if len(found) else last
        if len(found):
            self._begin()
            self._evict(first + int(found[0]))
            self._end()
        else:
            self._vain_at = now
        return len(found) > 0

    # ---- expiry

    def _expire_probationary(self, now: float) -> bool:
        cells, head = self.cells, self._head
        row = head[OLDEST_WORD]
        gone: list[int] = []
        while row and cells.until[row] <= now and len(gone) < _SLICE_REMOVALS:
            gone.append(row)
            row = cells.younger[row]
        if gone:
            self._begin()
            self._remove_all(np.array(gone))
            head[OLDEST_WORD] = row
            if row:
                cells.older[row] = 0
            else:
                head[YOUNGEST_WORD] = 0
            head[PROBATIONARY_WORD] -= len(gone)
            self.lapsed += len(gone)
            self._end()
        return len(gone) < _SLICE_REMOVALS

    def _expire_established(self, now: float) -> bool:
        """The next rows; True when they were the last ones."""
        columns, head = self.columns, self._head
        first = head[SWEEP_WORD]
        high = head[HIGH_WORD]
        last = min(first + _SLICE_ROWS, high)
        idle = columns.seen[first:last] <= now - self._idle
        idle &= columns.state[first:last] == ESTABLISHED
        gone = first + np.flatnonzero(idle)[:_SLICE_REMOVALS]
        if len(gone) == _SLICE_REMOVALS:
            last = int(gone[-1]) + 1
        if len(gone):
            self._begin()
            self._remove_all(gone)
            head[ESTABLISHED_WORD] -= len(gone)
            self.expired += len(gone)
            self._end()
        head[SWEEP_WORD] = last if last < high else 1
        return last >= high

    # ---- what the rules share

    def _write_proposal(self, row: int, pending: int, proposal: Proposal) -> None:
        """`pending` of the row is 0 before, and written last."""
        cells = self.cells
        cells.pending_username[row] = proposal.username
        cells.pending_token[row] = proposal.token
        cells.until[row] = proposal.until
        cells.budget[row] = min(proposal.budget, 0xFFFFFFFF)
        cells.pending[row] = pending

    def _evict(self, row: int) -> None:
        self._remove(row)
        self.evicted += 1

    def _count_for(self, row: int, token: int) -> None:
        """The flow is one of this token's; if those of its kind are too many, the one least spoken to makes room."""
        cells = self.cells
        if cells.token[row] != token:
            self._remove_token(row)
            cells.token[row] = token
            self._add_token(row)
        if token:
            self._make_room(token, cells.state[row], row)

    def _make_room(self, token: int, state: int, newcomer: int = 0) -> None:
        """For one more flow of this token and kind: `newcomer`, or one that has no row yet."""
        if not token:
            return
        cells, kin = self.cells, []
        row = cells.token_heads[self._token_bucket(token)]
        while row:
            if row != newcomer and cells.token[row] == token and cells.state[row] == state:
                kin.append(row)
            row = cells.token_link[row]
        if len(kin) >= self._max_per_token:
            self._evict(min(kin, key=lambda row: (cells.talked[row], cells.seen[row])))

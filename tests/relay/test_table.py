"""The flow table against a model of dictionaries, after a kill between any two lines."""

from __future__ import annotations

import itertools
import math
import mmap
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import relay
from protocol.address import TransportAddress, pack_address
from relay.config import RelayConfig
from relay.flows import FlowTable, Proposal
from relay.index import WIDE, Chains, Words, flow_words
from relay.layout import ESTABLISHED, FREE, HIGH_WORD, OLDEST_WORD, SEQUENCE_WORD, SPARE_WORD, LayoutError
from relay.worker import open_table

TRANSCEIVERS = [pack_address("10.0.0.1", 5001), pack_address("10.0.0.2", 5001), pack_address("2001:db8::5", 5001)]
CLIENTS = [
    flow_words(client, ingress)
    for client in (
        *(pack_address(f"198.51.100.{n}", 4000 + n) for n in range(6)),
        *(pack_address(f"2001:db8::{n}", 4000) for n in range(3)),
        pack_address("::", 0),
        pack_address("0.0.0.0", 0),
    )
    for ingress in (0, 1)
]
BOUNDS = {"max_per_token": 3, "idle": 60.0}
SEED = bytes(range(64))


def flow_client(words: Words) -> tuple[TransportAddress, int]:
    """The inverse of `flow_words`: client and ingress."""
    raw = b"".join(word.to_bytes(8, sys.byteorder) for word in words)
    if words[0] & WIDE:
        return TransportAddress(raw[2:4] + raw[8:24]), raw[0] & 127
    return TransportAddress(raw[2:8]), raw[0]


def make_table(
    memory: bytearray | mmap.mmap | None = None, *, max_flows: int = 8, max_probationary: int = 5
) -> FlowTable:
    return FlowTable.create(memory, max_flows=max_flows, max_probationary=max_probationary, seed=SEED, **BOUNDS)


def audit(table: FlowTable) -> dict[Words, int]:
    """Everything the table says of itself is the same thing; returns its flows and their rows."""
    cells, columns, head = table.cells, table.columns, table._head
    assert not head[SEQUENCE_WORD] & 1
    live = [row for row in range(1, head[HIGH_WORD]) if cells.state[row] != FREE]
    flows = {table.words(row): row for row in live}
    assert len(flows) == len(live)
    assert {words: table.find_words(words) for words in flows} == flows
    assert sorted(table._index._chains.rows().tolist()) == live
    assert sorted(table._tokens.rows().tolist()) == [row for row in live if cells.token[row]]
    spare, row = [], head[SPARE_WORD]
    while row:
        spare.append(row)
        row = cells.link[row]
    assert sorted(spare + live) == list(range(1, head[HIGH_WORD]))
    established = [row for row in live if cells.state[row] == ESTABLISHED]
    assert all((cells.target[row] != 0) == (row in established) for row in live)
    assert table.established == len(established) <= table.max_flows
    assert table.probationary == len(live) - len(established) <= table.max_probationary
    order = probationary_rows(table)
    assert sorted(order) == [row for row in live if row not in established]
    deadlines = [cells.until[row] for row in order]
    assert deadlines == sorted(deadlines)
    named = [number for row in live for number in (cells.target[row], cells.pending[row]) if number]
    holders = columns.holders.copy()
    holders[0] = 0
    assert holders.tolist()[: len(table.transceivers.addresses)] == [
        named.count(number) for number in range(len(table.transceivers.addresses))
    ]
    assert len(table.transceivers) == len(set(named))
    assert all(table.transceivers.addresses[number] for number in named)
    return flows


def probationary_rows(table: FlowTable) -> list[int]:
    row, before, order = table._head[OLDEST_WORD], 0, []
    while row:
        assert table.cells.older[row] == before
        order.append(row)
        before, row = row, table.cells.younger[row]
    return order


# ---- the same as a dictionary


@dataclass
class Flow:
    token: int
    seen: float
    target: TransportAddress | None = None
    username: int = 0
    pending: Proposal | None = None
    talked: float = -math.inf


class Model(RuleBasedStateMachine):
    """What the table must do, written down with objects."""

    @initialize()
    def begin(self) -> None:
        self.memory = bytearray(FlowTable.size(8, 5))
        self.table = make_table(self.memory)
        self.flows: dict[Words, Flow] = {}
        self.now = 100.0

    def kin(self, token: int, established: bool, but: Flow | None = None) -> None:
        kin = [
            words
            for words, flow in self.flows.items()
            if token and flow.token == token and (flow.target is not None) is established and flow is not but
        ]
        if len(kin) >= BOUNDS["max_per_token"]:
            del self.flows[min(kin, key=lambda words: self.flows[words].seen)]

    def probationary(self) -> list[Words]:
        return [words for words, flow in self.flows.items() if flow.target is None]

    def is_full(self) -> bool:
        return len(self.flows) - len(self.probationary()) >= 8

    proposals = st.tuples(st.sampled_from(TRANSCEIVERS), st.integers(1, 9), st.integers(0, 4))

    @rule(words=st.sampled_from(CLIENTS), proposal=proposals)
    def check(self, words: Words, proposal: tuple[TransportAddress, int, int]) -> None:
        self.now += 1.0
        made = Proposal(*proposal, budget=1000, until=self.now + 10.0)
        row = self.table.find_words(words)
        flow = self.flows.get(words)
        assert (row != 0) == (flow is not None)
        if flow is None:
            assert self.table.open(words, made, self.now)
            self.kin(made.token, established=False)
            if len(self.probationary()) >= 5:
                del self.flows[self.probationary()[0]]
            self.flows[words] = Flow(made.token, self.now, pending=made)
        else:
            assert self.table.propose(row, made)
            flow.pending = made
            if flow.target is None:
                self.flows[words] = self.flows.pop(words)
                flow.token = made.token
                self.kin(made.token, False, flow)

    @rule(words=st.sampled_from(CLIENTS), source=st.sampled_from(TRANSCEIVERS))
    def reply(self, words: Words, source: TransportAddress) -> None:
        self.now += 1.0
        row = self.table.find_words(words)
        flow = self.flows.get(words)
        if flow is None:
            assert (self.table.learn(words, source, self.now) != 0) == (not self.is_full())
            if not self.is_full():
                self.flows[words] = Flow(0, self.now, source)
        elif flow.target is None and self.is_full():
            assert not self.table.establish(row, source, self.now)
        else:
            assert self.table.establish(row, source, self.now)
            answered = flow.pending if flow.pending is not None and flow.pending.target == source else None
            flow.username = answered.username if answered else 0
            flow.token = answered.token if answered else flow.token
            flow.target, flow.pending, flow.seen, flow.talked = source, None, self.now, -math.inf
            self.kin(flow.token, True, flow)

    @rule(words=st.sampled_from(CLIENTS), username=st.integers(1, 9), token=st.integers(1, 4))
    def another_call(self, words: Words, username: int, token: int) -> None:
        self.now += 1.0
        flow = self.flows.get(words)
        if flow is not None and flow.target is not None:
            self.table.adopt(self.table.find_words(words), username, token)
            flow.username = username
            if not flow.token:
                flow.token = token
                self.kin(token, True, flow)

    @rule(chosen=st.sets(st.sampled_from(CLIENTS)))
    def packets(self, chosen: set[Words]) -> None:
        for words in sorted(chosen & self.flows.keys()):
            self.now += 0.125  # of two that are equally silent either may have to go
            self.table.cells.seen[self.table.find_words(words)] = self.now
            self.flows[words].seen = self.now

    @rule(seconds=st.sampled_from([1.0, 9.0, 30.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        while not self.table.expire(self.now):
            pass
        for words, flow in list(self.flows.items()):
            if flow.target is None:
                assert flow.pending is not None
                if flow.pending.until <= self.now:
                    del self.flows[words]
            elif flow.seen <= self.now - BOUNDS["idle"]:
                del self.flows[words]

    @rule(interrupted=st.booleans())
    def the_worker_is_killed(self, interrupted: bool) -> None:
        self.table._head[SEQUENCE_WORD] += interrupted
        self.table = FlowTable.attach(self.memory, **BOUNDS)

    @precondition(lambda self: hasattr(self, "table"))
    @invariant()
    def the_same(self) -> None:
        table, cells = self.table, self.table.cells
        rows = audit(table)
        assert rows.keys() == self.flows.keys()
        assert [table.words(row) for row in probationary_rows(table)] == self.probationary()
        addresses = table.transceivers.addresses
        for words, flow in self.flows.items():
            row = rows[words]
            assert addresses[cells.target[row]] == (flow.target or b"")
            assert (cells.token[row], cells.seen[row], cells.username[row]) == (flow.token, flow.seen, flow.username)
            assert addresses[cells.pending[row]] == (flow.pending.target if flow.pending else b"")
        for wide, look in ((False, table.lookup), (True, table.lookup_wide)):
            asked = [words for words in CLIENTS if (len(flow_client(words)[0]) == 18) is wide]
            keys = np.array(asked, np.uint64).T.copy() if wide else np.array([words[0] for words in asked], np.uint64)
            found = np.zeros(len(asked), np.int64)
            look(keys, found)
            assert found.tolist() == [rows.get(words, 0) for words in asked]


TestModel = pytest.mark.slow(Model.TestCase)
TestModel.settings = settings(max_examples=15, stateful_step_count=40, deadline=None, derandomize=True)


class LongModel(Model):
    pass


TestLongModel = pytest.mark.thorough(LongModel.TestCase)
TestLongModel.settings = settings(max_examples=300, stateful_step_count=80, deadline=None, derandomize=True)


# ---- look-up


@pytest.mark.parametrize("wide", [False, True], ids=["IPv4", "IPv6"])
def test_a_batch_finds_what_one_look_at_a_time_finds(wide: bool):
    """In crowded buckets too: all rows in a table of which they fill every place."""
    source = random.Random(3)
    table = make_table(max_flows=3000, max_probationary=1)
    host = (lambda: f"2001:db8::{source.randrange(1 << 16):x}") if wide else (lambda: "192.0.2.1")
    known = list({flow_words(pack_address(host(), source.randrange(1 << 16)), 5) for _ in range(3000)})
    rows = [table.learn(words, TRANSCEIVERS[0], 0.0) for words in known]
    for size in (1, 2, 7, 64, 1000):
        asked = [source.choice(known) for _ in range(size)]
        asked[::3] = [(words[0] ^ 1 << 56, words[1], words[2] ^ 1) for words in asked[::3]]
        found = np.zeros(size, np.int64)
        if wide:
            table.lookup_wide(np.array(asked, np.uint64).T.copy(), found)
        else:
            table.lookup(np.array([words[0] for words in asked], np.uint64), found)
        assert found.tolist() == [table.find_words(words) for words in asked]
        assert found.tolist() == [rows[known.index(words)] if words in known else 0 for words in asked]


def test_the_key_of_a_flow_says_who_and_where():
    for client, ingress in itertools.product(["192.0.2.1", "0.0.0.0", "2001:db8::1", "::"], [0, 1, 127]):
        address = pack_address(client, 65535)
        assert flow_client(flow_words(address, ingress)) == (address, ingress)


def test_every_order_of_coming_and_going_leaves_the_buckets_whole():
    """Six rows in two buckets: whichever are taken out, one by one and at once, the others are still found."""
    for order in itertools.permutations(range(1, 7)):
        heads, links, state = np.zeros(2, np.int32), np.zeros(7, np.int32), np.ones(7, np.uint8)
        chains = Chains(memoryview(heads), memoryview(links), heads, links)
        for row in order:
            chains.add(row % 2, row)
        one_by_one, at_once, kept = order[:2], np.array(sorted(order[2:4])), order[4:]
        for row in one_by_one:
            chains.remove(row % 2, row)
        state[at_once] = FREE
        chains.remove_free(at_once % 2, state)
        assert sorted(chains.rows().tolist()) == sorted(kept)
        chains.rebuild(at_once, at_once % 2)
        assert sorted(chains.rows().tolist()) == at_once.tolist()


# ---- bounds


def test_a_flow_takes_no_more_than_128_bytes_of_address_space():
    fixed = FlowTable.size(1, 1)
    for count in (70_000, 462_000, 1_000_000, 1_048_576):  # the second is the dearest: just above a power of two
        assert (FlowTable.size(count, 4096) - fixed) / (count + 4096) <= 128


def test_memory_that_is_not_a_table_is_refused():
    size = FlowTable.size(8, 5)
    for spoil in (b"", bytes(size), b"AntiFlow" + bytes(size)):
        with pytest.raises(LayoutError):
            FlowTable.attach(bytearray(spoil), **BOUNDS)
    memory = bytearray(size)
    make_table(memory)
    for word in (0, 1, 2):  # magic, version, size
        other = bytearray(memory)
        other[8 * word] ^= 1
        with pytest.raises(LayoutError):
            FlowTable.attach(other, **BOUNDS)
    with pytest.raises(LayoutError):
        FlowTable.attach(memory[:-4096], **BOUNDS)


def test_transceivers_that_no_flow_names_make_room_for_others(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("relay.transceivers.MAX_TRANSCEIVERS", 3)
    memory = bytearray(FlowTable.size(8, 5))
    table = make_table(memory)
    for n in range(20):
        row = table.learn(CLIENTS[0], pack_address("10.0.1.1", 1 + n), 100.0 * n)
        assert table.transceivers.addresses[table.cells.target[row]] == pack_address("10.0.1.1", 1 + n)
        table.expire(100.0 * n + 70)
    for n in range(3):
        assert table.learn(CLIENTS[n], pack_address("10.0.2.1", 1 + n), 5000.0)
    before = dict(audit(table))
    proposal = Proposal(pack_address("10.0.3.1", 1), 1, 1, 100, 5010.0)
    assert table.open(CLIENTS[3], proposal, 5000.0) == 0
    assert table.learn(CLIENTS[3], proposal.target, 5000.0) == 0
    assert not table.propose(before[CLIENTS[0]], proposal)
    assert audit(table) == before
    assert audit(FlowTable.attach(memory, **BOUNDS)) == before


# ---- killed


Trace = Callable[[FrameType, str, Any], Any] | None


class Killed(BaseException):
    pass


def kill() -> None:
    raise Killed


def interrupt(line: int, work: Callable[[], object], what: Callable[[], object] = kill) -> bool:
    """Run `work` and do something before it comes to that line of the relay's code; whether it came so far."""
    home = str(Path(relay.__file__).parent)
    left = line

    def trace(frame: FrameType, event: str, argument: object) -> Trace:
        nonlocal left
        if not frame.f_code.co_filename.startswith(home):
            return None
        if event == "line":
            left -= 1
            if left == -1:
                what()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except Killed:
        pass
    finally:
        sys.settrace(before)
    return left < 0


PROPOSAL = Proposal(TRANSCEIVERS[1], 7, 2, 500, 125.0)
WORKS: dict[str, Callable[[FlowTable], object]] = {
    "open": lambda table: table.open(CLIENTS[9], PROPOSAL, 105.0),
    "open with a new transceiver": lambda table: table.open(
        CLIENTS[13], PROPOSAL._replace(target=b"\0\1\2\3\4\5"), 105.0
    ),
    "propose to a probationary one": lambda table: table.propose(table.find_words(CLIENTS[4]), PROPOSAL),
    "propose to an established one": lambda table: table.propose(table.find_words(CLIENTS[0]), PROPOSAL),
    "establish": lambda table: table.establish(table.find_words(CLIENTS[5]), TRANSCEIVERS[0], 105.0),
    "move": lambda table: table.establish(table.find_words(CLIENTS[1]), TRANSCEIVERS[2], 105.0),
    "adopt": lambda table: table.adopt(table.find_words(CLIENTS[0]), 9, 3),
    "learn": lambda table: table.learn(CLIENTS[15], TRANSCEIVERS[1], 105.0),
    "expire": lambda table: table.expire(161.0),
}


@pytest.mark.parametrize("bounds", [(8, 5), (40, 30), (3, 2)], ids=["the same", "more", "fewer"])
def test_a_table_with_other_bounds_inherits_the_latest_flows(tmp_path: Path, bounds: tuple[int, int]):
    """An upgrade may change the configuration, and loses no call that there is room for."""
    file = tmp_path / "table"
    file.touch()
    descriptor = os.open(file, os.O_RDWR)

    def open_with(max_flows: int, max_probationary: int) -> FlowTable:
        limits = {"max_flows": max_flows, "max_probationary": max_probationary, "max_flows_per_token": 3}
        return open_table(descriptor, RelayConfig(**limits, idle_seconds=60.0))  # type: ignore[arg-type]

    former = open_with(8, 5)
    for n in range(8):
        former.learn(CLIENTS[n + 12], TRANSCEIVERS[n % 3], 100.0 + n)
    for n in range(5):
        former.open(CLIENTS[n], Proposal(TRANSCEIVERS[n % 3], n, 1 + n, 500, 210.0 + n), 200.0)
    old = {words: describe(former, row) for words, row in audit(former).items()}
    table = open_with(*bounds)
    new = {words: describe(table, row) for words, row in audit(table).items()}
    assert (table.max_flows, table.max_probationary) == bounds
    kept = [*CLIENTS[20 - min(8, bounds[0]) : 20], *CLIENTS[5 - min(5, bounds[1]) : 5]]
    assert new == {words: old[words] for words in kept}
    assert table.digest(b"name") == former.digest(b"name")
    assert (table.expired, table.lapsed, table.evicted) == (0, 0, 0)
    table.open(CLIENTS[8], PROPOSAL._replace(until=220.0), 205.0)
    assert len(audit(table)) == min(len(new) + 1, sum(bounds))
    os.close(descriptor)


def test_who_goes_on_with_a_table_counts_from_nothing():
    """The ledger adds up what several workers have counted, so none may count what another has."""
    memory = bytearray(FlowTable.size(8, 5))
    table = make_table(memory)
    for words in CLIENTS[:4]:
        table.open(words, PROPOSAL, 100.0)
    table.learn(CLIENTS[5], TRANSCEIVERS[0], 100.0)
    table.expire(1000.0)
    assert (table.expired, table.lapsed, table.evicted) == (1, 3, 1)
    table = FlowTable.attach(memory, **BOUNDS)
    assert (table.expired, table.lapsed, table.evicted) == (0, 0, 0)


def describe(table: FlowTable, row: int) -> tuple[object, ...]:
    cells, addresses = table.cells, table.transceivers.addresses
    return addresses[cells.target[row]], cells.username[row], addresses[cells.pending[row]], cells.token[row]


def killed_memory() -> bytearray:
    """A table at its bounds: whatever comes now costs something."""
    memory = bytearray(FlowTable.size(8, 5))
    table = make_table(memory)
    for n in range(4):
        table.learn(CLIENTS[n], TRANSCEIVERS[n % 2], 100.0)
    for n in range(4, 9):
        table.open(CLIENTS[n], Proposal(TRANSCEIVERS[n % 2], n, 1 + n % 2, 500, 110.0 + n), 100.0)
    table.establish(table.find_words(CLIENTS[8]), TRANSCEIVERS[0], 101.0)
    table.propose(table.find_words(CLIENTS[1]), Proposal(TRANSCEIVERS[2], 3, 2, 500, 111.0))
    table.open(CLIENTS[10], Proposal(TRANSCEIVERS[0], 3, 3, 500, 119.0), 102.0)
    return memory


@pytest.mark.slow
@pytest.mark.parametrize("work", WORKS)
def test_whoever_goes_on_after_a_kill_between_any_two_lines_has_a_whole_table(work: str):
    image = bytes(killed_memory())
    before = FlowTable.attach(bytearray(image), **BOUNDS)
    old = {words: describe(before, row) for words, row in audit(before).items()}
    after = FlowTable.attach(bytearray(image), **BOUNDS)
    WORKS[work](after)
    new = {words: describe(after, row) for words, row in audit(after).items()}
    assert old != new
    for line in itertools.count():
        memory = bytearray(image)
        victim = FlowTable.attach(memory, **BOUNDS)
        stopped = interrupt(line, lambda: WORKS[work](victim))  # noqa: B023
        successor = FlowTable.attach(memory, **BOUNDS)
        now = {words: describe(successor, row) for words, row in audit(successor).items()}
        for words in old.keys() | new.keys():
            if old.get(words) == new.get(words):
                assert now.get(words) == old.get(words)
            elif words in now:
                assert now[words][0] in {
                    flow[words][0] for flow in (old, new) if words in flow
                }  # no third one's target
                names = {(flow[words][0], flow[words][1]) for flow in (old, new) if words in flow}
                assert (now[words][0], now[words][1]) in names | {(now[words][0], 0)}
        WORKS["open"](successor) if not successor.find_words(CLIENTS[9]) else None
        audit(successor)
        if not stopped:
            assert now == new
            return


@pytest.mark.slow
def test_a_kill_while_the_table_is_mended_is_mended_too():
    image = killed_memory()
    whole = audit(FlowTable.attach(bytearray(image), **BOUNDS))
    image[8 * SEQUENCE_WORD] |= 1
    for line in itertools.count():
        memory = bytearray(image)
        stopped = interrupt(line, lambda: FlowTable.attach(memory, **BOUNDS))  # noqa: B023
        assert audit(FlowTable.attach(memory, **BOUNDS)) == whole
        if not stopped:
            return


def churn(table: FlowTable, source: random.Random, begin: float = 0.0) -> None:
    """Flows come and go for ever; the transceiver of a client is always the one that its port says."""
    for now in itertools.count(begin):
        client = source.randrange(200)
        words = flow_words(pack_address("192.0.2.1", 1 + client), 0)
        target = pack_address("10.0.0.1", 1 + client)
        row = table.find_words(words)
        if not row:
            table.open(words, Proposal(target, client, 1 + client % 9, 100, now + 20), now)
        elif table.cells.state[row] != ESTABLISHED:
            table.establish(row, target, now)
        table.expire(now)


def forked(work: Callable[[], None]) -> int:
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(1)
    return child


def stop(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


@pytest.mark.slow
def test_whoever_goes_on_after_a_real_kill_has_a_whole_table():
    source = random.Random(5)
    memory = mmap.mmap(-1, FlowTable.size(60, 20))
    table = make_table(memory, max_flows=60, max_probationary=20)
    mended = 0
    for number in range(30):
        child = forked(lambda: churn(table, source, 1e6 * number))  # noqa: B023
        time.sleep(0.005 + source.random() / 100)
        stop(child)
        mended += table._head[SEQUENCE_WORD] & 1
        table = FlowTable.attach(memory, **BOUNDS)
        for words, row in audit(table).items():
            client, _ = flow_client(words)
            number = table.cells.target[row] or table.cells.pending[row]
            assert table.transceivers.addresses[number] == pack_address("10.0.0.1", int.from_bytes(client[:2], "big"))
    assert mended > 0

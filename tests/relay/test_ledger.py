"""Counters in shared memory: they outlive whoever counts, and no total goes backwards."""

from __future__ import annotations

import mmap
import os
import struct
import zlib

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from relay.ledger import LEDGER_SIZE, Family, Ledger, add_up, open_memory


def frames(up: float, down: float = 0) -> Family:
    return Family("frames", "Frames", "counter", ("direction",), [(("up",), up), (("down",), down)])


def flows(count: float) -> Family:
    return Family("flows", "Flows", "gauge", (), [((), count)])


def test_what_is_written_is_read_by_another_process_of_the_same_memory():
    descriptor = open_memory("ledger", LEDGER_SIZE)
    writer, reader = Ledger(descriptor), Ledger(descriptor)
    assert reader.read() == []
    for count in range(5):
        writer.write([frames(count), flows(7)])
        assert reader.read() == [frames(count), flows(7)]
    writer.close()
    reader.close()
    os.close(descriptor)


def test_a_successor_goes_on_with_the_counters_and_begins_anew_with_what_only_is():
    descriptor = open_memory("ledger", LEDGER_SIZE)
    first = Ledger(descriptor)
    first.write([frames(100, 3), flows(50)])
    second = Ledger(descriptor)
    second.take_over()
    second.write([frames(1), flows(2)])
    second.write([frames(5, 1), flows(1)])
    assert first.read() == [frames(105, 4), flows(1)]
    for ledger in (first, second):
        ledger.close()
    os.close(descriptor)


@given(st.integers(0, 200), st.binary(min_size=1, max_size=50))
def test_whoever_is_killed_while_it_writes_leaves_what_was_there_before(position: int, garbage: bytes):
    descriptor = open_memory("ledger", LEDGER_SIZE)
    ledger = Ledger(descriptor)
    ledger.write([frames(1)])
    ledger.write([frames(2)])
    with mmap.mmap(descriptor, LEDGER_SIZE) as memory:  # in the slot that the selector does not name
        other = 8 + (1 - memory[0]) * ((LEDGER_SIZE - 8) // 2)
        memory[other + position : other + position + len(garbage)] = garbage
    assert ledger.read() == [frames(2)]
    ledger.close()
    os.close(descriptor)


def test_families_of_all_workers_are_added_up_label_by_label():
    drops = Family("drops", "Drops", "counter", ("reason",), [(("late",), 1)])
    total = add_up([[frames(1, 2), flows(3)], [frames(10, 20), drops], [flows(4)]])
    assert total == [frames(11, 22), flows(7), drops]


def test_what_another_release_has_left_is_nothing():
    descriptor = open_memory("ledger", LEDGER_SIZE)
    ledger = Ledger(descriptor)
    ledger.write([frames(3)])
    data = msgspec.msgpack.encode([{"name": "frames", "values": 3}])
    with mmap.mmap(descriptor, LEDGER_SIZE) as memory:
        for slot in (0, 1):
            start = 8 + slot * ((LEDGER_SIZE - 8) // 2)
            memory[start : start + 8 + len(data)] = struct.pack("=II", len(data), zlib.crc32(data)) + data
    ledger.take_over()
    assert ledger.read() == []
    ledger.write([frames(1)])
    assert ledger.read() == [frames(1)]
    ledger.close()
    os.close(descriptor)

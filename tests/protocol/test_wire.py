"""Reader and Writer: what is written is read back, nothing is read beyond its bounds, nothing is written that does not fit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import DecodeError, LocalError
from protocol.wire import Reader, Writer

modest = settings(max_examples=100, deadline=None, derandomize=True)


@modest
@given(st.lists(st.tuples(st.sampled_from([1, 2, 3, 4, 6, 8]), st.integers(0, 2**64 - 1)), max_size=20))
def test_numbers_of_every_width_are_read_back(numbers: list[tuple[int, int]]):
    numbers = [(width, value % (1 << 8 * width)) for width, value in numbers]
    writer = Writer()
    for width, value in numbers:
        {1: writer.u8, 2: writer.u16, 3: writer.u24, 4: writer.u32, 6: writer.u48, 8: writer.u64}[width](value)
    reader = Reader(writer.finish())
    for width, value in numbers:
        read = {1: reader.u8, 2: reader.u16, 3: reader.u24, 4: reader.u32, 6: reader.u48, 8: reader.u64}[width]
        assert read() == value
    reader.finish()


@modest
@given(st.lists(st.binary(max_size=30), max_size=6), st.binary(max_size=20))
def test_nested_vectors_are_read_back(items: list[bytes], rest: bytes):
    writer = Writer()
    with writer.block(2):
        for item in items:
            with writer.block(3):
                writer.opaque(item, 1)
    writer.put(rest)
    assert len(writer) == len(writer.finish())
    reader = Reader(memoryview(writer.finish()))
    vector = reader.block(2)
    for item in items:
        inner = vector.block(3)
        assert inner.opaque(1) == item
        inner.finish()
    vector.finish()
    assert reader.rest() == rest
    reader.finish()


@modest
@given(st.binary(max_size=12), st.lists(st.integers(0, 5), max_size=8))
def test_reading_any_bytes_stays_in_bounds(data: bytes, steps: list[int]):
    reader = Reader(data)
    reads: list[Callable[[], object]] = [
        reader.u8,
        reader.u32,
        lambda: reader.opaque(1),
        lambda: reader.block(2).rest(),
        lambda: reader.skip(3),
        lambda: reader.view(2),
    ]
    for step in steps:
        before = reader.position
        try:
            reads[step]()
        except DecodeError as error:
            assert error.reason == "truncated"
        assert before <= reader.position <= len(data)
        assert reader.remaining == len(data) - reader.position


def test_a_block_cannot_reach_beyond_the_vector_around_it():
    outer = Reader(b"\x02\x05abcdef").block(1)
    with pytest.raises(DecodeError):
        outer.block(1)


def test_bytes_left_over_are_refused():
    reader = Reader(b"ab")
    reader.skip(1)
    with pytest.raises(DecodeError) as caught:
        reader.finish()
    assert caught.value.reason == "trailing_bytes"


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (3, 2), (0, 5), (5, None)])
def test_bounds_outside_the_data_are_refused(start: int, end: int | None):
    with pytest.raises(DecodeError):
        Reader(b"abcd", start, end)


def test_a_part_of_the_data_is_read_as_if_it_were_all():
    reader = Reader(b"abcdef", 2, 4)
    assert (reader.position, reader.remaining) == (2, 2)
    assert reader.take(2) == b"cd"
    with pytest.raises(DecodeError):
        reader.u8()


def test_what_does_not_fit_is_a_local_error():
    writer = Writer()
    for write, value in ((writer.u8, 256), (writer.u16, -1), (writer.u48, 1 << 48)):
        with pytest.raises(LocalError):
            write(value)
    with pytest.raises(LocalError):
        writer.opaque(bytes(256), 1)
    with pytest.raises(LocalError), writer.block(1):
        writer.put(bytes(256))

"""Redundant audio: what is written is read back, lengths and counts are bounded, nesting is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.codecs import RedBlock, RedWriter, parse_red_untrusted
from protocol.codecs.red import MAX_RED_BLOCKS
from protocol.errors import DecodeError

RED = 63
types = st.integers(0, 127).filter(lambda kind: kind != RED)
repeated = st.builds(RedBlock, types, st.integers(0, 0x3FFF), st.binary(max_size=0x3FF))
newest = st.builds(RedBlock, types, st.just(0), st.binary(max_size=1200))


def serialize(blocks: tuple[RedBlock, ...]) -> bytes:
    heads = [
        bytes((0x80 | block.payload_type,)) + (block.timestamp_offset << 10 | len(block.payload)).to_bytes(3, "big")
        for block in blocks[:-1]
    ]
    return b"".join([*heads, bytes((blocks[-1].payload_type,)), *(block.payload for block in blocks)])


def refused(data: bytes) -> str:
    with pytest.raises(DecodeError) as caught:
        parse_red_untrusted(data, RED)
    return caught.value.reason


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(repeated, max_size=MAX_RED_BLOCKS - 1).map(tuple), newest)
def test_what_is_written_is_read_back(older: tuple[RedBlock, ...], last: RedBlock):
    assert parse_red_untrusted(serialize((*older, last)), RED) == (*older, last)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=200), st.integers(0, 127))
def test_any_bytes_give_blocks_within_the_packet_or_a_decode_error(data: bytes, payload_type: int):
    try:
        blocks = parse_red_untrusted(data, payload_type)
    except DecodeError as error:
        assert error.reason in ("red_truncated", "red_nested", "red_blocks")
    else:
        assert sum(len(block.payload) for block in blocks) + 4 * len(blocks) - 3 == len(data)
        assert len(blocks) <= MAX_RED_BLOCKS
        assert all(block.payload_type != payload_type for block in blocks)


def test_the_packet_of_chromium_reads_field_by_field():
    # PT 111 twice: 20 ms ago (960 ticks) of 3 bytes, and now
    data = bytes.fromhex("ef0f0003 6f aabbcc 0102")
    assert parse_red_untrusted(data, RED) == (RedBlock(111, 960, b"\xaa\xbb\xcc"), RedBlock(111, 0, b"\x01\x02"))


def test_the_largest_offset_and_length_keep_to_their_bits():
    blocks = (RedBlock(5, 0x3FFF, bytes(0x3FF)), RedBlock(5, 0, b""))
    assert serialize(blocks)[:4] == bytes.fromhex("85ffffff")
    assert parse_red_untrusted(serialize(blocks), RED) == blocks


def test_as_many_blocks_as_the_bound_says_are_taken():
    blocks = (*(RedBlock(111, n, bytes(n)) for n in range(MAX_RED_BLOCKS - 1)), RedBlock(111, 0, b"x"))
    assert parse_red_untrusted(serialize(blocks), RED) == blocks


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("", "red_truncated"),
        ("ef", "red_truncated"),
        ("ef0f00", "red_truncated"),
        ("ef0f0003", "red_truncated"),  # no newest block
        ("ef0f0003 6f aabb", "red_truncated"),  # a block longer than the packet
        ("3f 6f", "red_nested"),
        ("bf0f0001 6f aa", "red_nested"),
        ("ef0f0000" * MAX_RED_BLOCKS + "6f", "red_blocks"),
    ],
)
def test_packets_that_cannot_be_are_refused(data: str, reason: str):
    assert refused(bytes.fromhex(data)) == reason


def test_every_shorter_packet_is_refused_or_ends_in_the_newest_block():
    data = serialize((RedBlock(111, 1920, b"first"), RedBlock(111, 960, b"second"), RedBlock(111, 0, b"third")))
    for size in range(len(data) - len(b"third")):
        assert refused(data[:size]) == "red_truncated"


@given(st.lists(st.tuples(st.binary(max_size=1100), st.integers(1, 30_000)), min_size=1, max_size=20))
def test_a_stream_that_is_written_carries_each_payload_and_the_one_before_it(payloads: list[tuple[bytes, int]]):
    writer, timestamp, last = RedWriter(111), 0xFFFF_F000, b""
    for payload, step in payloads:
        timestamp += step
        packet = writer.write(payload, timestamp & 0xFFFFFFFF, 1172)
        assert len(packet) <= max(1172, len(payload) + 1)
        *copies, newest = parse_red_untrusted(packet, 63)
        assert newest == RedBlock(111, 0, payload)
        assert copies in ([], [RedBlock(111, step, last)])
        fits = 0 < len(last) < 1024 and len(last) + len(payload) + 5 <= 1172 and step < 1 << 14
        assert bool(copies) == fits or (not last)
        last = payload

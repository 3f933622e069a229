"""RTP packets on the wire: round trips, header extensions, padding, and everything that is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import DecodeError, LocalError
from protocol.rtp import RtpPacket, parse_header_untrusted, parse_rtp_untrusted, serialize_rtp

modest = settings(max_examples=100, deadline=None, derandomize=True)
u16, u32 = st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)
one_byte = st.tuples(st.integers(1, 14), st.binary(min_size=1, max_size=16))
two_byte = st.tuples(st.integers(1, 255), st.binary(max_size=40))
packets = st.builds(
    RtpPacket,
    marker=st.booleans(),
    payload_type=st.integers(0, 127),
    sequence=u16,
    timestamp=u32,
    ssrc=u32,
    csrc=st.lists(u32, max_size=15).map(tuple),
    extensions=st.one_of(st.lists(one_byte, max_size=4), st.lists(two_byte, max_size=4)).map(tuple),
    payload=st.binary(max_size=60),
    padding=st.one_of(st.just(0), st.integers(1, 255)),
)

BARE = bytes.fromhex("806f0102 0a0b0c0d 11223344")


def refused(data: bytes) -> str:
    with pytest.raises(DecodeError) as whole:
        parse_rtp_untrusted(data)
    return whole.value.reason


@modest
@given(packets)
def test_what_is_written_is_read_back(packet: RtpPacket):
    data = packet.serialize()
    assert parse_rtp_untrusted(data) == packet
    assert parse_rtp_untrusted(memoryview(bytearray(data))) == packet
    header = parse_header_untrusted(data)
    assert header[:5] == packet[:5]
    assert data[header.payload_start : header.payload_end] == packet.payload


@modest
@given(st.booleans(), st.integers(0, 127), u16, u32, u32, st.binary(max_size=60))
def test_the_short_writer_writes_the_same_bytes(
    marker: bool, payload_type: int, sequence: int, timestamp: int, ssrc: int, payload: bytes
):
    packet = RtpPacket(marker, payload_type, sequence, timestamp, ssrc, payload=payload)
    assert serialize_rtp(payload_type, sequence, timestamp, ssrc, payload, marker) == packet.serialize()


@modest
@given(st.one_of(st.binary(max_size=64), st.builds(bytes.__add__, st.sampled_from([b"\x90o", b"\xbfo"]), st.binary())))
def test_any_bytes_give_a_packet_or_a_decode_error(data: bytes):
    try:
        packet = parse_rtp_untrusted(data)
    except DecodeError as error:
        assert error.reason in ("rtp_truncated", "rtp_version", "rtp_padding", "rtp_extension")
    else:
        assert len(packet.payload) + packet.padding + 12 <= len(data)


@modest
@given(packets)
def test_a_header_cut_short_is_refused_at_every_length(packet: RtpPacket):
    data = packet.serialize()
    for length in range(12 + 4 * len(packet.csrc)):
        assert refused(data[:length]) == "rtp_truncated"


def test_a_bare_packet_reads_field_by_field():
    assert parse_rtp_untrusted(BARE + b"opus") == RtpPacket(
        False, 111, 0x0102, 0x0A0B0C0D, 0x11223344, (), (), b"opus", 0
    )
    assert parse_rtp_untrusted(b"\x80\xef" + BARE[2:]).marker


def test_one_byte_extensions_with_padding_between_are_read():
    # RFC 8285 §4.2's example: L = 0, a pad byte, L = 1, L = 3, pad
    block = bytes.fromhex("bede0003 10aa0000 21bbbb33 cccccccc")
    assert parse_rtp_untrusted(b"\x90" + BARE[1:] + block + b"x").extensions == (
        (1, b"\xaa"),
        (2, b"\xbb\xbb"),
        (3, b"\xcc\xcc\xcc\xcc"),
    )


def test_two_byte_extensions_are_read_whatever_the_application_bits():
    # RFC 8285 §4.3's example: L = 0, L = 1, a pad byte, L = 4
    block = bytes.fromhex("100f0003 01000201 bb000304 cccccccc")
    packet = parse_rtp_untrusted(b"\x90" + BARE[1:] + block + b"x")
    assert packet.extensions == ((1, b""), (2, b"\xbb"), (3, b"\xcc\xcc\xcc\xcc"))


def test_reading_stops_at_identifier_fifteen_and_at_identifier_zero_with_a_length():
    for stop in ("f0", "01"):
        block = bytes.fromhex(f"bede0002 10aa {stop}00 20bb0000")
        assert parse_rtp_untrusted(b"\x90" + BARE[1:] + block).extensions == ((1, b"\xaa"),)


def test_an_extension_of_another_profile_is_skipped():
    block = bytes.fromhex("abcd0001 deadbeef")
    packet = parse_rtp_untrusted(b"\x90" + BARE[1:] + block + b"opus")
    assert packet.extensions == ()
    assert packet.payload == b"opus"


@pytest.mark.parametrize("block", ["bede0001 13aabbcc", "10000001 0104aabb", "10000001 00000001"])
def test_an_element_that_overruns_its_block_is_refused(block: str):
    assert refused(b"\x90" + BARE[1:] + bytes.fromhex(block)) == "rtp_extension"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "rtp_truncated"),
        (BARE[:11], "rtp_truncated"),
        (b"\x00" + BARE[1:], "rtp_version"),
        (b"\x40" + BARE[1:], "rtp_version"),
        (b"\xc0" + BARE[1:], "rtp_version"),
        (b"\x81" + BARE[1:] + b"abc", "rtp_truncated"),
        (b"\x90" + BARE[1:] + b"\xbe\xde\x00", "rtp_truncated"),
        (b"\x90" + BARE[1:] + b"\xbe\xde\x00\x01abc", "rtp_truncated"),
        (b"\x90" + BARE[1:] + b"\xbe\xde\xff\xff", "rtp_truncated"),
        (b"\xa0" + BARE[1:], "rtp_padding"),
        (b"\xa0" + BARE[1:] + b"\x00", "rtp_padding"),
        (b"\xa0" + BARE[1:] + b"ab\x04", "rtp_padding"),
    ],
)
def test_broken_headers_are_refused_with_their_reason(data: bytes, reason: str):
    assert refused(data) == reason
    with pytest.raises(DecodeError):
        parse_header_untrusted(data)


def test_padding_may_be_all_there_is():
    packet = parse_rtp_untrusted(b"\xa0" + BARE[1:] + b"\0\0\0\x04")
    assert (packet.payload, packet.padding) == (b"", 4)


def test_fields_out_of_range_are_local_errors():
    packet = RtpPacket(False, 111, 1, 2, 3)
    for bad in (
        packet._replace(payload_type=128),
        packet._replace(csrc=(1,) * 16),
        packet._replace(padding=256),
        packet._replace(extensions=((0, b"x"),)),
        packet._replace(extensions=((1, bytes(256)),)),
    ):
        with pytest.raises(LocalError):
            bad.serialize()

"""RTCP on the wire: round trips of every packet type, compound and reduced-size packets, and what is refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import DecodeError, LocalError
from protocol.rtp.rtcp import (
    Feedback,
    Goodbye,
    ReceiverReport,
    ReportBlock,
    RtcpPacket,
    RtcpType,
    SdesChunk,
    SdesItemType,
    SenderReport,
    SourceDescription,
    UnknownPacket,
    parse_rtcp_untrusted,
    serialize_rtcp,
)

modest = settings(max_examples=100, deadline=None, derandomize=True)
u8, u32 = st.integers(0, 0xFF), st.integers(0, 0xFFFFFFFF)
words = st.integers(0, 4).flatmap(lambda n: st.binary(min_size=4 * n, max_size=4 * n))
blocks = st.lists(
    st.builds(ReportBlock, u32, u8, st.integers(-0x800000, 0x7FFFFF), u32, u32, u32, u32), max_size=31
).map(tuple)
chunks = st.builds(
    SdesChunk, u32, st.lists(st.tuples(st.integers(1, 255), st.binary(max_size=40)), max_size=3).map(tuple)
)
packets = st.one_of(
    st.builds(SenderReport, u32, st.integers(0, 2**64 - 1), u32, u32, u32, blocks, words),
    st.builds(ReceiverReport, u32, blocks, words),
    st.builds(SourceDescription, st.lists(chunks, max_size=4).map(tuple)),
    st.builds(Goodbye, st.lists(u32, max_size=31).map(tuple), st.binary(max_size=40)),
    st.builds(Feedback, st.sampled_from([RtcpType.RTPFB, RtcpType.PSFB]), st.integers(0, 31), u32, u32, words),
    st.builds(UnknownPacket, st.sampled_from([192, 204, 207, 223]), st.integers(0, 31), words),
)


def refused(data: bytes) -> bool:
    with pytest.raises(DecodeError) as caught:
        parse_rtcp_untrusted(data)
    return caught.value.reason == "rtcp_malformed"


@modest
@given(st.lists(packets, min_size=1, max_size=4))
def test_what_is_written_is_read_back(compound: list[RtcpPacket]):
    data = serialize_rtcp(compound)
    assert len(data) % 4 == 0
    assert parse_rtcp_untrusted(data) == compound
    assert parse_rtcp_untrusted(memoryview(data)) == compound


@modest
@given(
    st.one_of(st.binary(max_size=64), st.builds(lambda k, b: bytes((0x81, k)) + b, st.integers(192, 223), st.binary()))
)
def test_any_bytes_give_packets_or_a_decode_error(data: bytes):
    try:
        assert parse_rtcp_untrusted(data)
    except DecodeError as error:
        assert error.reason == "rtcp_malformed"


@modest
@given(st.lists(packets, min_size=1, max_size=2), st.integers(1, 3))
def test_a_datagram_that_does_not_end_with_a_packet_is_refused(compound: list[RtcpPacket], missing: int):
    assert refused(serialize_rtcp(compound)[:-missing])


def test_a_sender_report_reads_field_by_field():
    data = bytes.fromhex(
        "81c8000c 11111111 e6f0a1b2c3d4e5f6 00001000 00000064 00003e80"
        "22222222 40fffffe 00010005 00000030 a1b2c3d4 00018000"
    )
    block = ReportBlock(0x22222222, 64, -2, 0x10005, 48, 0xA1B2C3D4, 0x18000)
    assert parse_rtcp_untrusted(data) == [
        SenderReport(0x11111111, 0xE6F0A1B2C3D4E5F6, 4096, 100, 16000, (block,)),
    ]


def test_the_empty_receiver_report_that_firefox_sends_stands_alone():
    assert parse_rtcp_untrusted(bytes.fromhex("80c90001 00000007")) == [ReceiverReport(7)]


def test_reduced_size_feedback_needs_no_report_before_it():
    nack = bytes.fromhex("81cd0003 00000001 00000002 00050003")
    assert parse_rtcp_untrusted(nack) == [Feedback(RtcpType.RTPFB, 1, 1, 2, bytes.fromhex("00050003"))]


def test_a_cname_is_found_by_its_source():
    description = SourceDescription((SdesChunk(1, ()), SdesChunk(2, ((SdesItemType.CNAME, b"who"), (9, b"")))))
    (parsed,) = parse_rtcp_untrusted(description.serialize())
    assert isinstance(parsed, SourceDescription)
    assert (parsed.cname(2), parsed.cname(1), parsed.cname(3)) == (b"who", None, None)


def test_the_surplus_null_word_that_aiortc_puts_after_a_chunk_is_tolerated():
    data = bytes.fromhex("81ca0004 00000001 0105636e 616d6500 00000000")
    assert parse_rtcp_untrusted(data) == [SourceDescription((SdesChunk(1, ((1, b"cname"),)),))]


def test_padding_is_taken_from_the_last_packet_only():
    report = bytes.fromhex("80c90001 00000007")
    padded = bytes.fromhex("a0c90002 00000007 00000004")
    assert parse_rtcp_untrusted(report + padded) == [ReceiverReport(7), ReceiverReport(7)]
    assert refused(padded + report)
    for bad in ("a0c90001 00000007", "a0c90002 00000007 00000000", "a0c90002 00000007 0000000c", "a0c90000"):
        assert refused(bytes.fromhex(bad))


@pytest.mark.parametrize(
    "data",
    [
        "",
        "80",
        "80c9",
        "80c90001",  # shorter than it says
        "40c90001 00000007",  # version 1
        "81c90001 00000007",  # a block that is not there
        "80c80001 00000007",  # sender information missing
        "81ca0001 00000007",  # a chunk without its end
        "81ca0002 00000007 01ff0000",  # an item longer than its chunk
        "82cb0001 00000007",  # two sources announced, one there
        "80cb0001 05616263",  # a reason longer than its packet
        "81cd0001 00000007",  # feedback without media source
        "80c90001 00000007 80",  # a rest
    ],
)
def test_broken_packets_are_refused(data: str):
    assert refused(bytes.fromhex(data))


def test_what_does_not_fit_the_format_is_a_local_error():
    for packet in (
        ReceiverReport(1, (ReportBlock(1, 0, 0, 0, 0, 0, 0),) * 32),
        ReceiverReport(1, (), b"odd"),
        Goodbye((1,), bytes(256)),
        SourceDescription((SdesChunk(1, ((0, b"x"),)),)),
        SourceDescription((SdesChunk(1, ((1, bytes(256)),)),)),
        UnknownPacket(204, 0, bytes(3)),
    ):
        with pytest.raises(LocalError):
            packet.serialize()


def test_lengths_count_words_without_the_first():
    for packet in (Goodbye((1, 2), b"bye"), SourceDescription((SdesChunk(1, ((1, b"abcd"),)),))):
        data = packet.serialize()
        assert struct.unpack_from("!H", data, 2)[0] == len(data) // 4 - 1

"""Which protocol a datagram belongs to: the whole table of first and second bytes."""

from __future__ import annotations

import pytest

from protocol.demux import TRUNK_FIRST_BYTE, Kind, classify_untrusted


def reference(first: int, second: int) -> Kind:
    """RFC 7983 §7's figure and RFC 5761 §4, written out once more."""
    if first in range(4):
        return Kind.STUN
    if first in range(20, 64):
        return Kind.DTLS
    if first in range(128, 192):
        return Kind.RTCP if second in range(192, 224) else Kind.RTP
    return Kind.TRUNK if first == 0xC5 else Kind.UNKNOWN


def test_every_pair_of_first_bytes_is_classified_as_the_rfcs_say():
    for first in range(256):
        for second in range(256):
            assert classify_untrusted(bytes((first, second)) + bytes(20)) is reference(first, second)


@pytest.mark.parametrize("data", [b"", b"\0", b"\x16", b"\x80", b"\xc5"])
def test_what_is_too_short_for_any_protocol_is_unknown(data: bytes):
    assert classify_untrusted(data) is Kind.UNKNOWN
    assert classify_untrusted(memoryview(data)) is Kind.UNKNOWN


def test_the_trunk_takes_no_byte_of_a_protocol_that_shares_the_port():
    assert TRUNK_FIRST_BYTE not in range(192)


def test_an_audio_packet_with_its_marker_is_not_taken_for_rtcp():
    assert classify_untrusted(bytes((0x80, 0x80 | 111))) is Kind.RTP
    assert classify_untrusted(bytes((0x80, 200))) is Kind.RTCP
    assert classify_untrusted(bytes((0x81, 0x80 | 63))) is Kind.RTP  # the last payload type below those of RTCP

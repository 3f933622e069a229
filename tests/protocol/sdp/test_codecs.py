"""The codec registry: names in any case, frames that last what they say, silence that is valid."""

from __future__ import annotations

import pytest

from protocol.codecs import CODECS, FRAME_SECONDS, OPUS, Codec, codec_by_name, parse_telephone_event_untrusted
from protocol.errors import DecodeError

every_codec = pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)


@every_codec
def test_a_codec_is_found_by_its_name_in_any_case(codec: Codec):
    assert codec_by_name(codec.name.swapcase()) is codec
    assert codec.matches(codec.name.upper(), codec.clock_rate, codec.channels)
    assert not codec.matches(codec.name, codec.clock_rate + 1, codec.channels)


@every_codec
def test_a_frame_and_the_silence_of_a_codec_last_twenty_milliseconds(codec: Codec):
    assert codec.frame_samples == codec.clock_rate * FRAME_SECONDS
    assert codec.count_samples_untrusted(codec.silence) == codec.frame_samples


def test_static_payload_types_are_unique():
    static = [codec.static_payload_type for codec in CODECS if codec.static_payload_type is not None]
    assert len(static) == len(set(static))
    assert codec_by_name("red") is None


@pytest.mark.parametrize(
    ("packet", "milliseconds"),
    [
        ("08", 20),  # SILK narrowband 20 ms, one frame
        ("18", 60),
        ("19", 120),  # two frames of 60 ms
        ("60", 10),  # hybrid
        ("80", 2.5),  # CELT narrowband
        ("fc", 20),
        ("fe0102", 40),
        ("ff03", 60),
        ("8330", 120),  # 48 frames of 2.5 ms
        ("", 0),  # DTX
    ],
)
def test_the_length_of_an_opus_packet_is_read_from_its_first_bytes(packet: str, milliseconds: float):
    assert OPUS.count_samples_untrusted(bytes.fromhex(packet)) == milliseconds * 48


@pytest.mark.parametrize("packet", ["ff", "ff00", "1b03", "8331"])
def test_opus_packets_that_cannot_be_are_undecodable(packet: str):
    with pytest.raises(DecodeError):
        OPUS.count_samples_untrusted(bytes.fromhex(packet))


def test_a_telephone_event_is_read():
    event = parse_telephone_event_untrusted(bytes.fromhex("0b8a0320"))
    assert (event.digit, event.end, event.volume, event.duration) == ("#", True, 10, 800)
    assert parse_telephone_event_untrusted(bytes.fromhex("100a0000")).digit is None
    with pytest.raises(DecodeError):
        parse_telephone_event_untrusted(b"\x01\x02\x03")

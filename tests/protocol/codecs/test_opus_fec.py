"""Whether an Opus packet carries the audio before it once more: read from its first bits, held against libopus."""

from __future__ import annotations

import math
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.codecs.opus import OpusEncoder, find_opus
from protocol.codecs import OPUS
from protocol.codecs.opus import carries_opus_fec_untrusted, count_opus_frames_untrusted
from protocol.errors import DecodeError


def toc(configuration: int, code: int = 0, *, stereo: bool = False) -> int:
    return configuration << 3 | stereo << 2 | code


@pytest.mark.parametrize(
    ("packet", "carries"),
    [
        (bytes((toc(1), 0b1100_0000)), True),  # SILK 20 ms: voice, LBRR
        (bytes((toc(1), 0b1000_0000)), False),
        (bytes((toc(0), 0b0100_0000)), True),  # 10 ms: one SILK frame too
        (bytes((toc(2), 0b1100_0000)), False),  # 40 ms: two flags of voice, then LBRR
        (bytes((toc(2), 0b0010_0000)), True),
        (bytes((toc(3), 0b0001_0000)), True),  # 60 ms
        (bytes((toc(13), 0b0100_0000)), True),  # hybrid 20 ms
        (bytes((toc(1, stereo=True), 0b0001_0000)), True),  # the side channel's
        (bytes((toc(1, stereo=True), 0b0010_0000)), False),
        (bytes((toc(3, stereo=True), 0b0000_0001)), True),
        (bytes((toc(16), 0xFF)), False),  # CELT has none
        (bytes((toc(31), 0xFF)), False),
        (bytes((toc(1),)), False),  # DTX
        (b"", False),
        (bytes((toc(1, 1), 0x40, 0)), True),  # two frames of one length
        (bytes((toc(1, 2), 1, 0x40, 0, 0)), True),  # two frames with a length
        (bytes((toc(1, 2), 0, 0x40, 0)), False),  # the first of them is DTX
        (bytes((toc(1, 3), 0x80 | 0x40 | 2, 1, 1, 0x40, 0, 0)), True),  # VBR, with padding
        (bytes((toc(1, 3), 2, 0x40, 0)), True),  # CBR
        (bytes((toc(1, 3), 1, 0x40)), True),
    ],
)
def test_the_lbrr_flag_is_found_behind_those_of_voice_activity(packet: bytes, carries: bool):
    assert carries_opus_fec_untrusted(packet) is carries


@given(st.binary(max_size=80))
def test_it_refuses_what_the_framing_refuses_and_judges_the_rest(packet: bytes):
    try:
        carries = carries_opus_fec_untrusted(packet)
    except DecodeError:
        with pytest.raises(DecodeError):
            count_opus_frames_untrusted(packet)
    else:
        assert carries in (True, False)
        assert not (carries and packet[0] >> 3 >= 16)


@pytest.mark.skipif(find_opus() is None, reason="no libopus here")
@pytest.mark.parametrize("loss", [0, 25])
def test_packets_of_libopus_carry_copies_exactly_when_it_was_told_of_losses(loss: int):
    library = find_opus()
    assert library is not None
    encoder = OpusEncoder(library, loss)
    carrying = packets = 0
    for number in range(100):
        wave = (
            6000 * math.sin(2 * math.pi * 220 * n / 16_000) * (1 + math.sin(n / 900)) * (0.2 + (n // 1600 % 2))
            for n in range(number * 320, number * 320 + 320)
        )
        packet = encoder.encode(array("h", [round(value) for value in wave]).tobytes())
        packets += 1
        carrying += OPUS.carries_fec_untrusted is not None and OPUS.carries_fec_untrusted(packet)
    assert carrying > packets / 2 if loss else carrying == 0

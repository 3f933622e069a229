"""PCM by G.711 tables and by libopus."""

from __future__ import annotations

import math
from array import array
from itertools import pairwise

import pytest

from agent.codecs import CodecUnavailable, Decoder, open_decoder, open_encoder, pcm_codecs
from agent.codecs.g711 import G711Decoder, G711Encoder
from agent.codecs.opus import OpusEncoder, OpusLibrary, find_opus
from agent.events import Frame
from protocol.codecs import CODECS, OPUS, Codec
from protocol.codecs.opus import carries_opus_fec_untrusted


@pytest.mark.parametrize(
    ("name", "points"),
    [
        ("PCMU", {0xFF: 0, 0x7F: 0, 0x80: 32124, 0x00: -32124, 0xFE: 8, 0xF0: 120, 0xEF: 132}),
        ("PCMA", {0xD5: 8, 0x55: -8, 0xAA: 32256, 0x2A: -32256, 0xD4: 24, 0xC5: 264}),
    ],
)
def test_g711_expands_to_the_values_of_the_standard(name: str, points: dict[int, int]):
    decoded = array("h", G711Decoder(name).decode_untrusted(bytes(points)))
    assert list(decoded) == list(points.values())


@pytest.mark.parametrize("name", ["PCMU", "PCMA"])
def test_g711_compresses_every_sample_to_the_nearest_code(name: str):
    samples = array("h", range(-32768, 32768, 23))
    codes = G711Encoder(name).encode(samples.tobytes())
    again = array("h", G711Decoder(name).decode_untrusted(codes))
    steps = sorted(set(array("h", G711Decoder(name).decode_untrusted(bytes(range(256))))))
    for sample, value in zip(samples, again):
        assert abs(sample - value) == min(abs(sample - step) for step in steps)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_a_tone_survives_every_codec(codec: Codec):
    encoder, decoder = open_encoder(codec), open_decoder(codec)
    size = encoder.frame_samples
    tone = [round(8000 * math.sin(2 * math.pi * 440 * n / encoder.rate)) for n in range(size * 50)]
    heard = array("h")
    for at in range(0, len(tone), size):
        payload = encoder.encode(array("h", tone[at : at + size]).tobytes())
        assert codec.count_samples_untrusted(payload) == codec.frame_samples
        heard.frombytes(decoder.decode(payload))
    later = heard[len(heard) // 2 :]
    crossings = sum(1 for a, b in pairwise(later) if a < 0 <= b)
    assert crossings / (len(later) / decoder.rate) == pytest.approx(440, abs=6)
    assert 4000 < math.sqrt(sum(x * x for x in later) / len(later)) < 7000


@pytest.mark.parametrize("payload", [b"", b"\xff", b"\x03\xff", bytes(range(256)) * 5])
def test_opus_that_is_none_is_counted_or_noise_but_never_more(payload: bytes):
    decoder = open_decoder(OPUS)
    pcm = decoder.decode(payload)
    assert len(pcm) <= 16_000 * 2 * 120 // 1000
    assert decoder.undecodable == (not pcm)


def test_without_libopus_agents_ask_for_g711():
    assert OpusLibrary.load(["/no/such/libopus.so", "libc.so.6"]) is None
    assert pcm_codecs(None) == ("PCMU", "PCMA")
    assert pcm_codecs(find_opus()) == ("opus", "PCMU", "PCMA")


def test_a_call_without_audio_has_no_decoder():
    with pytest.raises(CodecUnavailable):
        open_decoder(None)


def speech(encoder: OpusEncoder, frames: int) -> tuple[array[int], list[bytes]]:
    size = encoder.frame_samples
    wave = array(
        "h",
        [
            round(
                7000 * math.sin(2 * math.pi * (180 + 40 * math.sin(n / 4000)) * n / encoder.rate) * (1 + n // 1600 % 2)
            )
            for n in range(size * frames)
        ],
    )
    return wave, [encoder.encode(wave[at : at + size].tobytes()) for at in range(0, len(wave), size)]


def test_what_was_lost_is_filled_from_the_copy_in_the_frame_behind_it():
    library = find_opus()
    assert library is not None
    _, packets = speech(OpusEncoder(library, loss=30), 60)
    lost = {number for number in range(10, 58, 7) if carries_opus_fec_untrusted(packets[number + 1])}
    assert len(lost) >= 4

    def hear(*, gaps: set[int], fec: bool) -> tuple[array[int], Decoder]:
        decoder, pcm = open_decoder(OPUS), array("h")
        for number, packet in enumerate(packets):
            if number not in gaps:
                gap = number - 1 in gaps
                pcm.frombytes(decoder.decode_frame(Frame(packet, number * 960, 20.0, gap=gap, fec=gap and fec)))
        return pcm, decoder

    whole, _ = hear(gaps=set(), fec=False)
    copied, with_copies = hear(gaps=lost, fec=True)
    concealed, without = hear(gaps=lost, fec=False)
    assert len(whole) == len(copied) == len(concealed) == 60 * 320, "no holes"
    assert (with_copies.recovered_ms, with_copies.concealed_ms) == (20.0 * len(lost), 0)
    assert (without.recovered_ms, without.concealed_ms) == (0, 20.0 * len(lost))

    def error(heard: array[int]) -> float:
        return sum((a - b) ** 2 for n in lost for a, b in zip(whole[n * 320 : n * 320 + 320], heard[n * 320 :]))

    assert error(copied) < error(concealed) / 2


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_a_long_gap_is_concealed_up_to_a_second_and_fades(codec: Codec):
    encoder = open_encoder(codec)
    size = encoder.frame_samples
    tone = array("h", [round(8000 * math.sin(2 * math.pi * 440 * n / encoder.rate)) for n in range(size)]).tobytes()
    decoder = open_decoder(codec)
    payload = encoder.encode(tone)
    decoder.decode_frame(Frame(payload, 0xFFFF_FF00, 20.0))
    after = 0xFFFF_FF00 + 26 * codec.frame_samples & 0xFFFFFFFF
    pcm = array("h", decoder.decode_frame(Frame(payload, after, 20.0, gap=True)))
    assert len(pcm) == 26 * size
    assert max(map(abs, pcm[22 * size : 24 * size])) < 1000, "nobody hears a tone go on for ever"
    later = after + 100 * codec.frame_samples
    assert len(decoder.decode_frame(Frame(payload, later & 0xFFFFFFFF, 20.0, gap=True))) == 2 * size
    pause = later + 50 * codec.frame_samples
    assert len(decoder.decode_frame(Frame(payload, pause & 0xFFFFFFFF, 20.0))) == 2 * size, "a pause is no gap"

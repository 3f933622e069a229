"""PCM by G.711 tables and by libopus."""

from __future__ import annotations

import math
from array import array
from itertools import pairwise

import pytest

from agent.codecs import CodecUnavailable, open_decoder, open_encoder, pcm_codecs
from agent.codecs.g711 import G711Decoder, G711Encoder
from agent.codecs.opus import OpusLibrary, find_opus
from protocol.codecs import CODECS, OPUS, Codec


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

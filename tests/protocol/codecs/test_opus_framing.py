"""Opus packets of every framing, built here frame by frame; and libopus as the judge, where this machine has it."""

from __future__ import annotations

import ctypes
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.codecs.opus import _candidates
from protocol.codecs.opus import count_opus_frames_untrusted, count_opus_samples_untrusted
from protocol.errors import DecodeError

MILLISECONDS = [10, 20, 40, 60] * 3 + [10, 20] * 2 + [2.5, 5, 10, 20] * 4  # RFC 6716 §3.1, table 2


def length(size: int) -> bytes:
    """RFC 6716 §3.2.1."""
    return bytes((size,)) if size < 252 else bytes((252 + (size & 3), (size - 252 - (size & 3)) // 4))


def padding(size: int) -> bytes:
    """The count of padding bytes, itself not counted (RFC 6716 §3.2.5)."""
    return b"\xff" * (size // 254) + bytes((size % 254,))


def packet(configuration: int, code: int, frames: list[bytes], *, vbr: bool = True, pad: int | None = None) -> bytes:
    toc = bytes((configuration << 3 | code,))
    if code < 2:
        return toc + b"".join(frames)
    if code == 2:
        return toc + length(len(frames[0])) + b"".join(frames)
    flags = len(frames) | (0x80 if vbr else 0) | (0x40 if pad is not None else 0)
    head = toc + bytes((flags,)) + (padding(pad) if pad is not None else b"")
    lengths = b"".join(length(len(frame)) for frame in frames[:-1]) if vbr else b""
    return head + lengths + b"".join(frames) + bytes(pad or 0)


def refused(data: bytes) -> str:
    with pytest.raises(DecodeError) as caught:
        count_opus_frames_untrusted(data)
    return caught.value.reason


@pytest.mark.parametrize("configuration", range(32))
def test_every_configuration_lasts_what_the_table_says(configuration: int):
    most = int(120 / MILLISECONDS[configuration])
    for frames in {1, 2, most}:
        for data in (
            packet(configuration, 3, [b"ab"] * frames, vbr=False),
            packet(configuration, 3, [bytes(n) for n in range(frames)], pad=300),
        ):
            assert count_opus_frames_untrusted(data) == frames
            assert count_opus_samples_untrusted(data) == frames * MILLISECONDS[configuration] * 48
    assert refused(packet(configuration, 3, [b"ab"] * (most + 1), vbr=False)) == "opus_frame_count"


def test_codes_zero_one_and_two_have_one_two_and_two_frames():
    assert count_opus_frames_untrusted(packet(15, 0, [b"abc"])) == 1
    assert count_opus_frames_untrusted(packet(15, 1, [b"abc", b"def"])) == 2
    for first in (0, 1, 251, 252, 255, 1275):
        assert count_opus_frames_untrusted(packet(15, 2, [bytes(first), b"x"])) == 2


def test_dtx_is_a_packet_of_one_byte_or_of_none():
    assert count_opus_samples_untrusted(b"\xf8") == 960  # the frame is there, its bytes are not
    assert count_opus_samples_untrusted(b"\x09") == 2 * 960
    assert count_opus_samples_untrusted(b"") == 0


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "opus_truncated"),
        (packet(15, 0, [bytes(1276)]), "opus_frame_length"),
        (packet(15, 1, [b"abc", b"de"]), "opus_frame_length"),
        (packet(15, 1, [bytes(1276), bytes(1276)]), "opus_frame_length"),
        (packet(15, 2, [b"abc", b""])[:-1], "opus_frame_length"),
        (packet(15, 2, [b"", bytes(1276)]), "opus_frame_length"),
        (b"\x7a", "opus_truncated"),
        (b"\x7a\xfc", "opus_truncated"),
        (b"\x7b", "opus_truncated"),
        (b"\x7b\x00", "opus_frame_count"),
        (b"\x7b\x41", "opus_truncated"),
        (b"\x7b\x41\xff", "opus_truncated"),
        (b"\x7b\x41\x05abcd", "opus_frame_length"),
        (b"\x7b\x02abc", "opus_frame_length"),
        (b"\x7b\x83\x01", "opus_truncated"),
        (b"\x7b\x82\x04abc", "opus_frame_length"),
    ],
)
def test_packets_whose_lengths_do_not_add_up_are_refused(data: bytes, reason: str):
    assert refused(data) == reason
    if data:
        with pytest.raises(DecodeError):
            count_opus_samples_untrusted(data)


def libopus_parse() -> Callable[[bytes], int] | None:
    """The number of frames libopus sees, less than 0 when it refuses the packet; None on a machine without libopus."""
    for path in _candidates():
        try:
            parse = ctypes.CDLL(path).opus_packet_parse
        except (OSError, AttributeError):
            continue
        parse.argtypes = [
            *(ctypes.c_char_p, ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
        ]
        return lambda data: int(parse(data, len(data), None, None, (ctypes.c_int16 * 48)(), None))
    return None


LIBOPUS = libopus_parse()


@pytest.mark.skipif(LIBOPUS is None, reason="no libopus on this machine")
@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.one_of(
        st.binary(min_size=1, max_size=40),
        st.builds(
            lambda toc, rest: bytes((toc,)) + rest, st.integers(0, 63).map(lambda n: n << 2 | 3), st.binary(max_size=60)
        ),
        st.builds(
            lambda toc, size, seed: bytes((toc,)) + random.Random(seed).randbytes(size),
            st.integers(0, 255),
            st.sampled_from([1274, 1275, 1276, 2550, 2551, 2552]),
            st.integers(0, 1000),
        ),
    )
)
def test_libopus_says_the_same_of_any_packet(data: bytes):
    try:
        ours = count_opus_frames_untrusted(data)
    except DecodeError:
        ours = -1
    assert LIBOPUS is not None
    assert max(LIBOPUS(data), -1) == ours

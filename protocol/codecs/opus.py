"""Opus in RTP (RFC 7587) and the packet framing that tells how long a packet lasts (RFC 6716 §3).

Opus passes through untouched; only its table-of-contents byte is read:

1. TOC: configuration (5 bits), stereo (1 bit), frame count code (2 bits).
2. The configuration gives the duration of one frame, 2.5 to 60 ms.
3. Code 0 is one frame, code 1 two of one length, code 2 two of any; code 3 has the count in the next byte, with lengths
   before the frames (VBR) or without (CBR), and padding behind them. At most 120 ms in all.

What a decoder would refuse is refused here too; frames of no bytes are valid, and mean DTX.
"""

from __future__ import annotations

from protocol.codecs.codec import Codec
from protocol.errors import DecodeError

__all__ = ["OPUS", "count_opus_frames_untrusted", "count_opus_samples_untrusted"]

# Specification constants
CLOCK_RATE = 48_000  # RFC 7587 §4.1: always 48 kHz, whatever the audio bandwidth
MAX_PACKET_SAMPLES = 120 * CLOCK_RATE // 1000  # RFC 6716 §3.2.5, requirement R5
MAX_FRAME_BYTES = 1275  # RFC 6716 §3.2.1

# RFC 6716 §3.1, table 2: ticks per frame for each of the 32 configurations
_SILK = (480, 960, 1920, 2880)
_HYBRID = (480, 960)
_CELT = (120, 240, 480, 960)
_FRAME_SAMPLES = _SILK * 3 + _HYBRID * 2 + _CELT * 4


def count_opus_frames_untrusted(payload: bytes) -> int:
    """The frames of a packet whose framing holds together; a DecodeError for one that no decoder takes (RFC 6716 §3.4)."""
    if not payload:
        raise DecodeError("opus_truncated")
    toc, rest = payload[0], len(payload) - 1
    match toc & 3:
        case 0:
            frames, largest = 1, rest
        case 1:
            if rest % 2:
                raise DecodeError("opus_frame_length")
            frames, largest = 2, rest // 2
        case 2:
            length, position = _read_length(payload, 1)
            frames, largest = 2, len(payload) - position - length
        case _:
            frames, largest = _read_code_3(payload)
    if not 0 <= largest <= MAX_FRAME_BYTES:  # no length byte can say more, so only the implicit ones can be too long
        raise DecodeError("opus_frame_length")
    return frames


def _read_code_3(payload: bytes) -> tuple[int, int]:
    """(frames, bytes of the frame whose length follows from those of the others)"""
    if len(payload) < 2:
        raise DecodeError("opus_truncated")
    flags, position = payload[1], 2
    frames = flags & 0x3F
    if frames == 0 or frames * _FRAME_SAMPLES[payload[0] >> 3] > MAX_PACKET_SAMPLES:
        raise DecodeError("opus_frame_count")
    padding = 0
    more = bool(flags & 0x40)
    while more:
        if position == len(payload):
            raise DecodeError("opus_truncated")
        more = payload[position] == 255  # stands for 254 bytes, and another byte of the count
        padding += payload[position] - more
        position += 1
    end = len(payload) - padding
    if flags & 0x80:
        total = 0
        for _ in range(frames - 1):
            length, position = _read_length(payload, position)
            total += length
        return frames, end - position - total
    if end < position or (end - position) % frames:
        raise DecodeError("opus_frame_length")
    return frames, (end - position) // frames


def _read_length(payload: bytes, position: int) -> tuple[int, int]:
    """(a frame's length, where reading goes on); one byte, or two from 252 on (RFC 6716 §3.2.1)."""
    if position >= len(payload):
        raise DecodeError("opus_truncated")
    first = payload[position]
    if first < 252:
        return first, position + 1
    if position + 1 >= len(payload):
        raise DecodeError("opus_truncated")
    return 4 * payload[position + 1] + first, position + 2


def count_opus_samples_untrusted(payload: bytes) -> int:
    """The 48 kHz ticks this packet lasts. An empty payload is DTX and lasts nothing by itself (RFC 7587 §3.1.3)."""
    if not payload:
        return 0
    return count_opus_frames_untrusted(payload) * _FRAME_SAMPLES[payload[0] >> 3]


OPUS = Codec(
    name="opus",
    clock_rate=CLOCK_RATE,
    channels=2,  # RFC 7587 §7: the rtpmap MUST say 2, mono or not
    frame_samples=960,
    static_payload_type=None,
    silence=b"\xf8\xff\xfe",  # CELT fullband, 20 ms, mono: the frame libopus itself produces for digital silence
    format_parameters="minptime=10;useinbandfec=1",
    count_samples_untrusted=count_opus_samples_untrusted,
)

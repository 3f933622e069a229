"""Opus in RTP (RFC 7587) and the packet framing that tells how long a packet lasts (RFC 6716 §3).

Opus passes through untouched; only its table-of-contents byte is read:

1. TOC: configuration (5 bits), stereo (1 bit), frame count code (2 bits).
2. The configuration gives the duration of one frame, 2.5 to 60 ms.
3. Code 0 is one frame, codes 1 and 2 are two, code 3 has the count in the next byte; at most 120 ms in all.
"""

from __future__ import annotations

from protocol.codecs.codec import Codec
from protocol.errors import DecodeError

__all__ = ["OPUS", "count_opus_samples_untrusted"]

# Specification constants
CLOCK_RATE = 48_000  # RFC 7587 §4.1: always 48 kHz, whatever the audio bandwidth
MAX_PACKET_SAMPLES = 120 * CLOCK_RATE // 1000  # RFC 6716 §3.2.5, requirement R5

# RFC 6716 §3.1, table 2: ticks per frame for each of the 32 configurations
_SILK = (480, 960, 1920, 2880)
_HYBRID = (480, 960)
_CELT = (120, 240, 480, 960)
_FRAME_SAMPLES = _SILK * 3 + _HYBRID * 2 + _CELT * 4


def count_opus_samples_untrusted(payload: bytes) -> int:
    """The 48 kHz ticks this packet lasts. An empty payload is DTX and lasts nothing by itself (RFC 7587 §3.1.3)."""
    if not payload:
        return 0
    toc = payload[0]
    code = toc & 3
    if code == 3:
        if len(payload) < 2:
            raise DecodeError("opus_truncated")
        frames = payload[1] & 0x3F
        if frames == 0:
            raise DecodeError("opus_frame_count")
    else:
        frames = 2 if code else 1
    samples = frames * _FRAME_SAMPLES[toc >> 3]
    if samples > MAX_PACKET_SAMPLES:
        raise DecodeError("opus_duration")
    return samples


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

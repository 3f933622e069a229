"""Opus in RTP (RFC 7587) and the packet framing that tells how long a packet lasts (RFC 6716 §3).

Opus passes through untouched; only its framing is read:

1. TOC: configuration (5 bits), stereo (1 bit), frame count code (2 bits).
2. The configuration gives the duration of one frame, 2.5 to 60 ms.
3. Code 0 is one frame, code 1 two of one length, code 2 two of any; code 3 has the count in the next byte, with lengths
   before the frames (VBR) or without (CBR), and padding behind them. At most 120 ms in all.
4. The first bits of a SILK or hybrid frame tell whether it carries a copy of the audio before it (in-band FEC: LBRR frames).

What a decoder would refuse is refused here too; frames of no bytes are valid, and mean DTX.
"""

from __future__ import annotations

from typing import NamedTuple

from protocol.codecs.codec import Codec
from protocol.errors import DecodeError

__all__ = ["OPUS", "carries_opus_fec_untrusted", "count_opus_frames_untrusted", "count_opus_samples_untrusted"]

# Specification constants
CLOCK_RATE = 48_000  # RFC 7587 §4.1: always 48 kHz, whatever the audio bandwidth
MAX_PACKET_SAMPLES = 120 * CLOCK_RATE // 1000  # RFC 6716 §3.2.5, requirement R5
MAX_FRAME_BYTES = 1275  # RFC 6716 §3.2.1

# RFC 6716 §3.1, table 2: ticks per frame for each of the 32 configurations
_SILK = (480, 960, 1920, 2880)
_HYBRID = (480, 960)
_CELT = (120, 240, 480, 960)
_FIRST_CELT_TOC = 16 << 3  # configurations below 16 contain SILK
_STEREO = 0x04
_ONE_PADDED = 0x41  # the second byte of code 3: one frame, and padding
_SILK_FRAME_SAMPLES = 960
_FRAME_SAMPLES = _SILK * 3 + _HYBRID * 2 + _CELT * 4


class _Framing(NamedTuple):
    frames: int
    largest: int  # bytes of the frame whose length follows from those of the others
    first: int  # where the first frame begins
    first_length: int


def count_opus_frames_untrusted(payload: bytes) -> int:
    """The frames of a packet whose framing holds together; a DecodeError for one that no decoder takes (RFC 6716 §3.4)."""
    return _read_framing(payload).frames


def _read_framing(payload: bytes) -> _Framing:
    if not payload:
        raise DecodeError("opus_truncated")
    toc, rest = payload[0], len(payload) - 1
    match toc & 3:
        case 0:
            framing = _Framing(1, rest, 1, rest)
        case 1:
            if rest % 2:
                raise DecodeError("opus_frame_length")
            framing = _Framing(2, rest // 2, 1, rest // 2)
        case 2:
            length, position = _read_length(payload, 1)
            framing = _Framing(2, len(payload) - position - length, position, length)
        case _:
            framing = _read_code_3(payload)
    if not 0 <= framing.largest <= MAX_FRAME_BYTES:  # no length byte can say more, so only the implicit can be too long
        raise DecodeError("opus_frame_length")
    return framing


def _read_code_3(payload: bytes) -> _Framing:
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
        lengths = []
        for _ in range(frames - 1):
            length, position = _read_length(payload, position)
            lengths.append(length)
        last = end - position - sum(lengths)
        return _Framing(frames, last, position, lengths[0] if lengths else last)
    if end < position or (end - position) % frames:
        raise DecodeError("opus_frame_length")
    each = (end - position) // frames
    return _Framing(frames, each, position, each)


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
    toc = payload[0]
    if not toc & 3 and len(payload) <= MAX_FRAME_BYTES + 1:  # one frame: nearly every packet
        return _FRAME_SAMPLES[toc >> 3]
    if len(payload) > 2 and payload[1] == _ONE_PADDED and toc & 3 == 3:  # what remains: CBR encoders fill up with it
        padding = payload[2]
        if padding != 255 and 0 <= len(payload) - 3 - padding <= MAX_FRAME_BYTES:
            return _FRAME_SAMPLES[toc >> 3]
    return count_opus_frames_untrusted(payload) * _FRAME_SAMPLES[payload[0] >> 3]


def carries_opus_fec_untrusted(payload: bytes) -> bool:
    """Whether the packet holds a copy of the audio just before it, as long as its first frame (RFC 6716 §2.1.7).

    The first frame of SILK or hybrid begins with one bit of voice activity for each of its SILK frames, then the LBRR flag;
    in stereo the same of the side channel follows (§4.2.3). All have the probability ½, so they stand in the first byte as
    they are.
    """
    if not payload or payload[0] >= _FIRST_CELT_TOC:
        return False
    framing = _read_framing(payload)
    if framing.first_length == 0:  # DTX
        return False
    silk_frames = max(1, _FRAME_SAMPLES[payload[0] >> 3] // _SILK_FRAME_SAMPLES)
    bits = payload[framing.first]
    side = payload[0] & _STEREO and bits >> 6 - 2 * silk_frames & 1
    return bool(bits >> 7 - silk_frames & 1 or side)


OPUS = Codec(
    name="opus",
    clock_rate=CLOCK_RATE,
    channels=2,  # RFC 7587 §7: the rtpmap MUST say 2, mono or not
    frame_samples=960,
    static_payload_type=None,
    silence=b"\xf8\xff\xfe",  # CELT fullband, 20 ms, mono: the frame libopus itself produces for digital silence
    format_parameters="minptime=10;useinbandfec=1",
    count_samples_untrusted=count_opus_samples_untrusted,
    carries_fec_untrusted=carries_opus_fec_untrusted,
)

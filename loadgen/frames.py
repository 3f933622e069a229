"""Audio frames that can be recognised when they come back: Opus that any decoder takes, with a mark where none looks.

    TOC(1)  0x41(1)  padding length(1)  SILK frame  run(4)  call(4)  sequence(4)  sent, µs(8)  CRC-32(4)

What is said is a second of synthetic speech, over and over (`speech.hex`, made by libopus): each packet holds a coarse copy
of the frame before it (in-band FEC, RFC 6716 §2.1.7), or none of them does. The mark is the padding of a code 3 packet
(RFC 6716 §3.2.5), which decoders skip. `run` tells the frames of this run from those of any other; by the CRC over all
before it a frame that was changed anywhere is found out.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple, TypeAlias
from zlib import crc32

__all__ = ["MARK_LENGTH", "PLAIN", "PROTECTED", "FrameMark", "Mark", "make_frame", "read_frame_untrusted"]

# Specification constants
CODE_3 = 0x03
ONE_FRAME_WITH_PADDING = 0x41

# Implementation constants
_MARK = struct.Struct(">4sIIQ")
_CHECK = struct.Struct(">I")
MARK_LENGTH = _MARK.size + _CHECK.size
HEADER_LENGTH = 3


Mark: TypeAlias = tuple[bytes, int, int, int]
"""A FrameMark without its names: one is read from every frame."""


class FrameMark(NamedTuple):
    run: bytes
    call: int
    sequence: int
    sent: int
    """Microseconds on the generator's clock."""


def _read_speech(kind: str) -> tuple[bytes, ...]:
    """The packets under the heading `# kind`, each as far as its mark."""
    _, _, after = (Path(__file__).with_name("speech.hex")).read_text().partition(f"# {kind}\n")
    packets = map(bytes.fromhex, after.partition("#")[0].split())
    return tuple(bytes((packet[0] | CODE_3, ONE_FRAME_WITH_PADDING, MARK_LENGTH)) + packet[1:] for packet in packets)


PROTECTED = _read_speech("with in-band FEC")
PLAIN = _read_speech("without")
_pack, _unpack, _pack_check, _unpack_check = _MARK.pack, _MARK.unpack_from, _CHECK.pack, _CHECK.unpack_from


def make_frame(mark: Mark, speech: tuple[bytes, ...] = PROTECTED) -> bytes:
    frame = speech[mark[2] % len(speech)] + _pack(*mark)
    return frame + _pack_check(crc32(frame))


def read_frame_untrusted(payload: bytes) -> Mark | None:
    """The mark of a frame that is as `make_frame` made it; None for any other bytes."""
    end = len(payload) - _CHECK.size
    if end < HEADER_LENGTH + _MARK.size or _unpack_check(payload, end)[0] != crc32(payload[:end]):
        return None
    return _unpack(payload, end - _MARK.size)

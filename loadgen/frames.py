"""Audio frames that can be recognised when they come back.

    TOC(1)  run(4)  call(4)  sequence(4)  sent, µs(8)  filler, to 60…120 bytes

The first byte is an Opus table of contents (RFC 6716 §3.1): one CELT frame of 20 ms, so that whoever counts durations on
the way counts right. `run` tells the frames of this run from those of any other; the filler follows from the sequence
number, so a frame that was changed anywhere is found out.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

__all__ = ["HEADER_LENGTH", "FrameMark", "make_frame", "read_frame_untrusted"]

# Specification constants
TOC_CELT_20_MS = 0xF8  # configuration 31, mono, one frame

# Implementation constants
SHORTEST, LONGEST = 60, 120  # bytes: speech at 24 to 48 kbit/s
_HEADER = struct.Struct(">B4sIIQ")
HEADER_LENGTH = _HEADER.size
_FILLER = bytes(index * 167 + 13 & 0xFF for index in range(256 + LONGEST))


class FrameMark(NamedTuple):
    run: bytes
    call: int
    sequence: int
    sent: int
    """Microseconds on the generator's clock."""


def make_frame(mark: FrameMark) -> bytes:
    sequence = mark.sequence
    length = SHORTEST + sequence * 37 % (LONGEST - SHORTEST + 1)
    start = sequence & 0xFF
    header = _HEADER.pack(TOC_CELT_20_MS, mark.run, mark.call, sequence, mark.sent)
    return header + _FILLER[start : start + length - HEADER_LENGTH]


def read_frame_untrusted(payload: bytes) -> FrameMark | None:
    """The mark of a frame that is byte for byte what `make_frame` makes of it; None for any other bytes."""
    if len(payload) < HEADER_LENGTH:
        return None
    mark = FrameMark(*_HEADER.unpack_from(payload)[1:])
    return mark if make_frame(mark) == payload else None

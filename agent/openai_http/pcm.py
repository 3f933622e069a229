"""16-bit samples between the machine's byte order, in which parts have them, and the little-endian of files and servers."""

from __future__ import annotations

import struct
import sys

import numpy as np

__all__ = ["from_little_endian", "wav"]

# Specification constants: a RIFF file of one `fmt ` and one `data` chunk
_HEAD = struct.Struct("<4sI4s4sIHHIIHH4sI")
_FORMAT_BYTES = 16
_FORMAT_PCM = 1


def from_little_endian(data: bytes) -> bytes:
    """And the other way: whole samples."""
    return data if sys.byteorder == "little" else np.frombuffer(data, "<i2").astype(">i2").tobytes()


def wav(pcm: bytes, rate: int) -> bytes:
    """A file of mono sound in the machine's byte order."""
    size = len(pcm)
    head = _HEAD.pack(
        b"RIFF",
        _HEAD.size - 8 + size,
        b"WAVE",
        b"fmt ",
        _FORMAT_BYTES,
        _FORMAT_PCM,
        1,
        rate,
        rate * 2,
        2,
        16,
        b"data",
        size,
    )
    return head + from_little_endian(pcm)

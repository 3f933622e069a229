"""The generic NACK (RFC 4585 §6.2.1): feedback of type RTPFB, format 1, whose control information names lost packets.

 0                   1                   2                   3
 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
|  PID: a sequence number       |  BLP: which of the next 16    |   … once or more
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from protocol.errors import DecodeError

__all__ = ["NACK_FORMAT", "read_nack_untrusted", "write_nack"]

# Specification constants
NACK_FORMAT = 1
_ENTRY = struct.Struct("!HH")
_FOLLOWING = 16  # bits of BLP

# Implementation constants
MAX_ENTRIES = 32  # of one NACK: 544 packets, eleven seconds of speech; what stands behind them is not read


def read_nack_untrusted(information: bytes) -> tuple[int, ...]:
    """The sequence numbers in it, at most 544, in the order they are named."""
    if not information or len(information) % _ENTRY.size:
        raise DecodeError("rtcp_nack")
    named = []
    for first, following in _ENTRY.iter_unpack(information[: MAX_ENTRIES * _ENTRY.size]):
        named.append(first)
        if following:
            named += [first + 1 + bit & 0xFFFF for bit in range(_FOLLOWING) if following >> bit & 1]
    return tuple(named)


def write_nack(sequences: Iterable[int]) -> bytes:
    """The control information that names them. They must be in order, a wrap at 2^16 included."""
    entries: list[list[int]] = []
    for sequence in sequences:
        offset = sequence - entries[-1][0] - 1 & 0xFFFF if entries else _FOLLOWING
        if offset < _FOLLOWING:
            entries[-1][1] |= 1 << offset
        else:
            entries.append([sequence, 0])
    return b"".join(_ENTRY.pack(first, following) for first, following in entries)

"""Transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1): RTPFB, format 15.

 0                   1                   2                   3
 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
|      base sequence number     |      packet status count      |
|         reference time, in 64 ms              | feedback count|
|  packet chunk, two bytes each …                               |
|  receive deltas, in 250 µs, one or two bytes each …           | zeros to a whole word

A status: 0 not received, 1 a delta of one byte, 2 a delta of two, signed. A chunk: 0 | status (2) | run length (13), or
1 | 0 | fourteen statuses of one bit, or 1 | 1 | seven statuses of two. The first delta counts from the reference time, each
later one from the packet received before it.
"""

from __future__ import annotations

import operator
import struct
from dataclasses import dataclass

from protocol.errors import DecodeError, LocalError
from protocol.wire import Reader

__all__ = ["TRANSPORT_CC_FORMAT", "TransportFeedback", "read_transport_feedback_untrusted"]

# Specification constants
TRANSPORT_CC_FORMAT = 15
TICKS_PER_SECOND = 4000  # 250 µs
REFERENCE_TICKS = 256  # 64 ms
_HEAD = struct.Struct("!HHI")
_NONE, _SMALL, _LARGE = 0, 1, 2
_RUN_LENGTH = 0x1FFF
_ONE_BIT, _TWO_BITS = 14, 7  # statuses in a chunk

# Implementation constants
MAX_STATUSES = 2048  # of one feedback that we read: 40 s of audio
_WORTH_A_RUN = 14


@dataclass(frozen=True, slots=True)
class TransportFeedback:
    base_sequence: int
    reference_time: int
    """In 64 ms, of 24 bits."""
    feedback_count: int
    arrivals: tuple[int | None, ...]
    """For each sequence number from the base on: when it came, in 250 µs since the reference time; None: it did not."""

    def information(self) -> bytes:
        """The control information of the feedback packet. LocalError: two arrivals lie more than 8 s apart."""
        if (row := self._as_row()) is not None:
            return row
        statuses, deltas, last = bytearray(), bytearray(), 0
        for arrival in self.arrivals:
            if arrival is None:
                statuses.append(_NONE)
                continue
            delta, last = arrival - last, arrival
            if 0 <= delta <= 0xFF:
                statuses.append(_SMALL)
                deltas.append(delta)
            elif -0x8000 <= delta <= 0x7FFF:
                statuses.append(_LARGE)
                deltas += (delta & 0xFFFF).to_bytes(2, "big")
            else:
                raise LocalError(f"a delta of {delta} ticks has no place in transport-wide feedback")
        return self._framed(_write_chunks(bytes(statuses)), bytes(deltas))

    def _as_row(self) -> bytes | None:
        """The same, if all arrived in order and soon after one another: one run, and a byte for each."""
        arrivals = self.arrivals
        if not arrivals or None in arrivals or len(arrivals) > _RUN_LENGTH:
            return None
        deltas = list(map(operator.sub, arrivals[1:], arrivals))
        first = arrivals[0]
        if first is None or not 0 <= first <= 0xFF or (deltas and not 0 <= min(deltas) <= max(deltas) <= 0xFF):
            return None
        return self._framed((_SMALL << 13 | len(arrivals)).to_bytes(2, "big"), bytes((first, *deltas)))

    def _framed(self, chunks: bytes, deltas: bytes) -> bytes:
        word = (self.reference_time & 0xFFFFFF) << 8 | self.feedback_count & 0xFF
        body = _HEAD.pack(self.base_sequence, len(self.arrivals), word) + chunks + deltas
        return body + bytes(-len(body) % 4)


def _write_chunks(statuses: bytes) -> bytes:
    chunks, position, end = bytearray(), 0, len(statuses)
    while position < end:
        status = statuses[position]
        run = len(statuses[position:]) - len(statuses[position:].lstrip(bytes((status,))))
        if run >= _WORTH_A_RUN or position + run == end:
            run = min(run, _RUN_LENGTH)
            chunk = status << 13 | run
        elif _LARGE in statuses[position : position + _ONE_BIT]:
            run = _TWO_BITS
            padded = statuses[position : position + run].ljust(run, b"\0")
            chunk = 0xC000 | sum(value << 2 * (run - 1 - at) for at, value in enumerate(padded))
        else:
            run = _ONE_BIT
            padded = statuses[position : position + run].ljust(run, b"\0")
            chunk = 0x8000 | sum(value << run - 1 - at for at, value in enumerate(padded))
        chunks += chunk.to_bytes(2, "big")
        position += run
    return bytes(chunks)


def read_transport_feedback_untrusted(information: bytes) -> TransportFeedback:
    """DecodeError for what is none, or tells of more than MAX_STATUSES packets."""
    reader = Reader(information)
    base, count = reader.u16(), reader.u16()
    word = reader.u32()
    if count > MAX_STATUSES:
        raise DecodeError("transport_cc_count")
    statuses: list[int] = []
    while len(statuses) < count:
        chunk = reader.u16()
        if not chunk & 0x8000:
            statuses += [chunk >> 13] * min(chunk & _RUN_LENGTH, count - len(statuses))
            if not chunk & _RUN_LENGTH:
                raise DecodeError("transport_cc_chunk", "a run of nothing")
        elif chunk & 0x4000:
            statuses += [chunk >> 2 * (_TWO_BITS - 1 - at) & 3 for at in range(_TWO_BITS)]
        else:
            statuses += [chunk >> _ONE_BIT - 1 - at & 1 for at in range(_ONE_BIT)]
    arrivals: list[int | None] = []
    last = 0
    for status in statuses[:count]:
        if status == _NONE:
            arrivals.append(None)
            continue
        if status == _SMALL:
            last += reader.u8()
        elif status == _LARGE:
            delta = reader.u16()
            last += delta - 0x10000 if delta >> 15 else delta
        else:
            raise DecodeError("transport_cc_status")
        arrivals.append(last)
    return TransportFeedback(base, word >> 8, word & 0xFF, tuple(arrivals))

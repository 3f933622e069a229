"""Redundant audio (RFC 2198 §3): earlier payloads repeated in front of the newest one.

one header of four bytes for each repeated block, then one of a single byte for the newest; then the blocks in that order

 0                   1                   2                   3
 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
|F=1|  block PT |  timestamp offset (14)    | block length (10) |        |F=0|  block PT |

What is done with it is in ADR 20. The newest block has no length of its own: it takes the rest.
"""

from __future__ import annotations

from typing import NamedTuple

from protocol.errors import DecodeError

__all__ = ["MAX_RED_BLOCKS", "RedBlock", "RedWriter", "parse_red_untrusted"]

# Specification constants
_FOLLOWED = 0x80  # the F bit
_REPEATED_HEADER = 4
_MAX_OFFSET = (1 << 14) - 1
_MAX_LENGTH = (1 << 10) - 1

# Implementation constants
MAX_RED_BLOCKS = 32  # browsers send two or three


class RedBlock(NamedTuple):
    """One payload; it belongs `timestamp_offset` ticks before the RTP timestamp of the packet, the newest 0."""

    payload_type: int
    timestamp_offset: int
    payload: bytes


def parse_red_untrusted(payload: bytes, payload_type: int) -> tuple[RedBlock, ...]:
    """The blocks of a packet, the newest last. `payload_type` is that of RED itself: a block of it is nesting, and refused."""
    headers: list[tuple[int, int, int]] = []
    position = 0
    while True:
        if position == len(payload):
            raise DecodeError("red_truncated")
        first = payload[position]
        if first & 0x7F == payload_type:
            raise DecodeError("red_nested")
        if not first & _FOLLOWED:
            position += 1
            break
        if len(headers) == MAX_RED_BLOCKS - 1:
            raise DecodeError("red_blocks")
        if position + _REPEATED_HEADER > len(payload):
            raise DecodeError("red_truncated")
        word = int.from_bytes(payload[position + 1 : position + _REPEATED_HEADER], "big")
        headers.append((first & 0x7F, word >> 10, word & 0x3FF))
        position += _REPEATED_HEADER
    blocks = []
    for kind, offset, length in headers:
        if position + length > len(payload):
            raise DecodeError("red_truncated")
        blocks.append(RedBlock(kind, offset, payload[position : position + length]))
        position += length
    return (*blocks, RedBlock(first & 0x7F, 0, payload[position:]))


class RedWriter:
    """Of one stream: makes each payload one of redundant audio, with a copy of the payload before it."""

    __slots__ = ("_last", "_last_timestamp", "_payload_type")

    def __init__(self, payload_type: int) -> None:
        """`payload_type`: the codec's."""
        self._payload_type = payload_type
        self._last = b""
        self._last_timestamp = 0

    def write(self, payload: bytes, timestamp: int, most: int) -> bytes:
        """The payload with its copy in front; without it, if that would be too old or make it longer than `most` bytes."""
        last, offset = self._last, timestamp - self._last_timestamp & 0xFFFFFFFF
        self._last, self._last_timestamp = payload, timestamp
        head = bytes((self._payload_type,))
        length = len(last)
        fits = 0 < length <= _MAX_LENGTH and length + _REPEATED_HEADER + 1 + len(payload) <= most
        if not fits or not 0 < offset <= _MAX_OFFSET:
            return head + payload
        word = (_FOLLOWED | self._payload_type) << 24 | offset << 10 | length
        return word.to_bytes(_REPEATED_HEADER, "big") + head + last + payload

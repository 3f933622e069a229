"""SCTP packets: common header, checksum, chunk walk (RFC 9260 §3).

    0                   1                   2                   3
   |     source port number        |   destination port number     |
   |                       verification tag                        |
   |                checksum, CRC32c, little endian                |
   |  chunk type   |  chunk flags  |         chunk length          |   repeated; length counts these four bytes,
   |                  chunk value, padded to 4 bytes               |   but not the padding

1. The checksum is checked over the whole packet with its field as zero (§6.8).
2. The walk goes over the whole packet before any chunk is looked at: one bad length drops the packet whole.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from google_crc32c import value as crc32c

from protocol.errors import DecodeError

__all__ = [
    "CHUNK_HEADER_LENGTH",
    "COMMON_HEADER_LENGTH",
    "ParsedPacket",
    "RawChunk",
    "build_chunk",
    "build_packet",
    "parse_packet_untrusted",
]

# Specification constants
COMMON_HEADER_LENGTH = 12
CHUNK_HEADER_LENGTH = 4

# Implementation constants
MAX_PACKET_LENGTH = 16384  # what one DTLS record can carry
MAX_CHUNKS = 512  # more is no traffic of a data channel

_HEADER = struct.Struct("!HHL")
_CHECKSUM = struct.Struct("<L")
_CHUNK_HEADER = struct.Struct("!BBH")
_NO_CHECKSUM = bytes(4)
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")  # by length % 4


# Not frozen, as everything that is made for every packet: that would take three times as long.
@dataclass(slots=True)
class RawChunk:
    type: int
    flags: int
    value: bytes


@dataclass(slots=True)
class ParsedPacket:
    source_port: int
    destination_port: int
    verification_tag: int
    chunks: list[RawChunk]


def parse_packet_untrusted(data: bytes) -> ParsedPacket:
    length = len(data)
    if length < COMMON_HEADER_LENGTH + CHUNK_HEADER_LENGTH:
        raise DecodeError("packet_short")
    if length > MAX_PACKET_LENGTH:
        raise DecodeError("packet_long")
    (checksum,) = _CHECKSUM.unpack_from(data, 8)
    if crc32c(data[:8] + _NO_CHECKSUM + data[12:]) != checksum:
        raise DecodeError("packet_checksum")
    source_port, destination_port, verification_tag = _HEADER.unpack_from(data)
    chunks: list[RawChunk] = []
    position = COMMON_HEADER_LENGTH
    while position < length:
        if length - position < CHUNK_HEADER_LENGTH:
            raise DecodeError("chunk_length")
        kind, flags, chunk_length = _CHUNK_HEADER.unpack_from(data, position)
        end = position + chunk_length
        if chunk_length < CHUNK_HEADER_LENGTH or end > length:
            raise DecodeError("chunk_length")
        if len(chunks) == MAX_CHUNKS:
            raise DecodeError("chunk_count")
        chunks.append(RawChunk(kind, flags, data[position + CHUNK_HEADER_LENGTH : end]))
        position = (end + 3) & ~3
    return ParsedPacket(source_port, destination_port, verification_tag, chunks)


def build_chunk(kind: int, flags: int, value: bytes) -> bytes:
    return _CHUNK_HEADER.pack(kind, flags, len(value) + CHUNK_HEADER_LENGTH) + value + _PADDING[len(value) & 3]


def build_packet(source_port: int, destination_port: int, verification_tag: int, chunks: Sequence[bytes]) -> bytes:
    header = _HEADER.pack(source_port, destination_port, verification_tag)
    body = b"".join(chunks)
    return header + _CHECKSUM.pack(crc32c(header + _NO_CHECKSUM + body)) + body

"""Chunk values: one message class, one builder and one parser for each kind (RFC 9260 §3.3, RFC 3758 §3.2).

Chunks without a value of their own (COOKIE ACK, SHUTDOWN ACK, …) need no class. Unknown chunk types stay integers;
their two highest bits say what to do with them (§3.2), see `ACTION_SKIP` and `ACTION_REPORT`.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

from protocol.errors import DecodeError
from protocol.sctp.packet import RawChunk, build_chunk
from protocol.wire import Reader

__all__ = [
    "ACTION_REPORT",
    "ACTION_SKIP",
    "DATA_HEADER_LENGTH",
    "CauseCode",
    "ChunkType",
    "Data",
    "DataFlags",
    "ForwardTsn",
    "Sack",
    "build_cause",
    "build_data",
    "build_forward_tsn",
    "build_sack",
    "build_shutdown",
    "parse_causes_untrusted",
    "parse_data_untrusted",
    "parse_forward_tsn_untrusted",
    "parse_sack_untrusted",
    "parse_shutdown_untrusted",
]


# Specification constants
class ChunkType(enum.IntEnum):
    """https://www.iana.org/assignments/sctp-parameters: chunk types."""

    DATA = 0
    INIT = 1
    INIT_ACK = 2
    SACK = 3
    HEARTBEAT = 4
    HEARTBEAT_ACK = 5
    ABORT = 6
    SHUTDOWN = 7
    SHUTDOWN_ACK = 8
    ERROR = 9
    COOKIE_ECHO = 10
    COOKIE_ACK = 11
    ECNE = 12
    CWR = 13
    SHUTDOWN_COMPLETE = 14
    RE_CONFIG = 130
    FORWARD_TSN = 192


class CauseCode(enum.IntEnum):
    """Error causes (RFC 9260 §3.3.10)."""

    INVALID_STREAM_IDENTIFIER = 1
    MISSING_MANDATORY_PARAMETER = 2
    STALE_COOKIE = 3
    OUT_OF_RESOURCE = 4
    UNRESOLVABLE_ADDRESS = 5
    UNRECOGNIZED_CHUNK_TYPE = 6
    INVALID_MANDATORY_PARAMETER = 7
    UNRECOGNIZED_PARAMETERS = 8
    NO_USER_DATA = 9
    COOKIE_RECEIVED_WHILE_SHUTTING_DOWN = 10
    RESTART_WITH_NEW_ADDRESSES = 11
    USER_INITIATED_ABORT = 12
    PROTOCOL_VIOLATION = 13


class DataFlags(enum.IntFlag):
    END = 0x01
    BEGIN = 0x02
    UNORDERED = 0x04
    IMMEDIATE = 0x08  # RFC 7053: acknowledge at once


ACTION_SKIP = 0x80  # type bit: skip this chunk and go on; clear: leave the rest of the packet
ACTION_REPORT = 0x40  # type bit: report it in an ERROR chunk
DATA_HEADER_LENGTH = 16

_DATA = struct.Struct("!LHHL")
_DATA_CHUNK = struct.Struct("!BBHLHHL")
_SACK = struct.Struct("!LLHH")
_SACK_CHUNK = struct.Struct("!BBHLLHH")


@dataclass(slots=True)
class Data:
    flags: int
    tsn: int
    stream: int
    ssn: int
    ppid: int
    payload: bytes


@dataclass(slots=True)
class Sack:
    cumulative_tsn: int
    window: int
    gaps: tuple[tuple[int, int], ...]  # (start, end), offsets from the cumulative TSN
    duplicates: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ForwardTsn:
    cumulative_tsn: int
    streams: tuple[tuple[int, int], ...]  # (stream, last SSN skipped)


def parse_data_untrusted(chunk: RawChunk) -> Data:
    value = chunk.value
    if len(value) < 12:
        raise DecodeError("data_short")
    tsn, stream, ssn, ppid = _DATA.unpack_from(value)
    return Data(chunk.flags, tsn, stream, ssn, ppid, value[12:])


def build_data(flags: int, tsn: int, stream: int, ssn: int, ppid: int, payload: bytes) -> bytes:
    length = DATA_HEADER_LENGTH + len(payload)
    header = _DATA_CHUNK.pack(ChunkType.DATA, flags, length, tsn, stream, ssn, ppid)
    return header + payload + bytes(-length & 3)


def parse_sack_untrusted(value: bytes) -> Sack:
    if len(value) < 12:
        raise DecodeError("sack_short")
    cumulative_tsn, window, gap_count, duplicate_count = _SACK.unpack_from(value)
    if len(value) != 12 + 4 * (gap_count + duplicate_count):
        raise DecodeError("sack_length")
    if len(value) == 12:
        return Sack(cumulative_tsn, window, (), ())
    offsets = struct.unpack_from(f"!{2 * gap_count}H", value, 12)
    duplicates = struct.unpack_from(f"!{duplicate_count}L", value, 12 + 4 * gap_count)
    return Sack(cumulative_tsn, window, tuple(zip(offsets[::2], offsets[1::2])), duplicates)


def build_sack(sack: Sack) -> bytes:
    if not sack.gaps and not sack.duplicates:
        return _SACK_CHUNK.pack(ChunkType.SACK, 0, 16, sack.cumulative_tsn, sack.window, 0, 0)
    value = _SACK.pack(sack.cumulative_tsn, sack.window, len(sack.gaps), len(sack.duplicates))
    if sack.gaps:
        value += struct.pack(f"!{2 * len(sack.gaps)}H", *(offset for gap in sack.gaps for offset in gap))
    if sack.duplicates:
        value += struct.pack(f"!{len(sack.duplicates)}L", *sack.duplicates)
    return build_chunk(ChunkType.SACK, 0, value)


def parse_forward_tsn_untrusted(value: bytes) -> ForwardTsn:
    reader = Reader(value)
    cumulative_tsn = reader.u32()
    if reader.remaining % 4:
        raise DecodeError("forward_tsn_length")
    streams = [(reader.u16(), reader.u16()) for _ in range(reader.remaining // 4)]
    return ForwardTsn(cumulative_tsn, tuple(streams))


def build_forward_tsn(forward: ForwardTsn) -> bytes:
    value = forward.cumulative_tsn.to_bytes(4, "big")
    value += b"".join(struct.pack("!HH", stream, ssn) for stream, ssn in forward.streams)
    return build_chunk(ChunkType.FORWARD_TSN, 0, value)


def parse_shutdown_untrusted(value: bytes) -> int:
    """The cumulative TSN that a SHUTDOWN chunk acknowledges."""
    if len(value) != 4:
        raise DecodeError("shutdown_length")
    return int.from_bytes(value, "big")


def build_shutdown(cumulative_tsn: int) -> bytes:
    return build_chunk(ChunkType.SHUTDOWN, 0, cumulative_tsn.to_bytes(4, "big"))


def parse_causes_untrusted(value: bytes) -> list[tuple[int, bytes]]:
    """The (code, information) pairs of an ERROR or ABORT chunk."""
    causes: list[tuple[int, bytes]] = []
    reader = Reader(value)
    while reader.remaining >= 4:
        code, length = reader.u16(), reader.u16()
        if length < 4:
            raise DecodeError("cause_length")
        causes.append((code, reader.take(length - 4)))
        reader.skip(min(-length & 3, reader.remaining))
    return causes


def build_cause(code: int, information: bytes = b"") -> bytes:
    length = 4 + len(information)
    return struct.pack("!HH", code, length) + information + bytes(-length & 3)

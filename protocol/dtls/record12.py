"""DTLS 1.2 records: RFC 6347 §4.1.

     0      1  2      3  4     5                10     11 12     13
    +------+---------+--------+------------------+---------+----------+
    | type | version | epoch  | sequence number  | length  | fragment |
    +------+---------+--------+------------------+---------+----------+

Epoch and sequence number together are one 64-bit number, unique under a key: it goes into nonce and additional data.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from protocol.dtls.registry import ProtocolVersion

__all__ = [
    "EPOCH_SHIFT",
    "MAXIMUM_PLAINTEXT",
    "RECORD_HEADER",
    "RECORD_HEADER_LENGTH",
    "Record",
    "pack_record",
    "split_records_untrusted",
]

# Specification constants

RECORD_HEADER = struct.Struct("!BHQH")  # type, version, epoch and sequence number, length
RECORD_HEADER_LENGTH = 13
EPOCH_SHIFT = 48
MAXIMUM_PLAINTEXT = 1 << 14  # RFC 5246 §6.2.1
_MAXIMUM_FRAGMENT = MAXIMUM_PLAINTEXT + 2048  # RFC 5246 §6.2.3
_VERSION = int(ProtocolVersion.DTLS_1_2)
_FIRST_VERSION = int(ProtocolVersion.DTLS_1_0)  # stands in the first records of a handshake, never under keys
_FIRST_BYTES = range(20, 64)  # RFC 7983 §7

# Implementation constants

_MAXIMUM_RECORDS = 64  # in one datagram: 9000 bytes of empty records shall not cost 700 turns


class Record(NamedTuple):
    content_type: int
    number: int  # epoch << 48 | sequence number
    fragment: bytes

    @property
    def epoch(self) -> int:
        return self.number >> EPOCH_SHIFT


def split_records_untrusted(datagram: bytes) -> tuple[list[Record], str]:
    """The records of a datagram, and why the rest of it was not read ("" if all was).

    A damaged record hides where the next one begins, so what follows it is dropped; what came before stays good
    (RFC 6347 §4.1.2.7: invalid records SHOULD be silently discarded).
    """
    records: list[Record] = []
    position, end = 0, len(datagram)
    while position < end:
        if end - position < RECORD_HEADER_LENGTH:
            return records, "record_truncated"
        content_type, version, number, length = RECORD_HEADER.unpack_from(datagram, position)
        position += RECORD_HEADER_LENGTH
        known = version == _VERSION or (version == _FIRST_VERSION and not number >> EPOCH_SHIFT)
        if not known or content_type not in _FIRST_BYTES:
            return records, "record_header"
        if length > _MAXIMUM_FRAGMENT:
            return records, "record_overflow"
        if length > end - position:
            return records, "record_truncated"
        if len(records) == _MAXIMUM_RECORDS:
            return records, "record_count"
        records.append(Record(content_type, number, datagram[position : position + length]))
        position += length
    return records, ""


def pack_record(content_type: int, number: int, fragment: bytes, version: int = ProtocolVersion.DTLS_1_2) -> bytes:
    return RECORD_HEADER.pack(content_type, version, number, len(fragment)) + fragment

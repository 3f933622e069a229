"""The three trailers of a STUN message: two MACs and a checksum (RFC 8489 §14.5, §14.6, §14.7).

Each covers the bytes before it, under a header whose length field counts up to the end of the trailer itself. The
callers hand over exactly the bytes before the trailer; the length is rewritten here.
"""

from __future__ import annotations

import binascii
import hmac
from struct import Struct

__all__ = [
    "HEADER_LENGTH",
    "message_fingerprint",
    "message_integrity",
    "message_integrity_sha256",
]

# Specification constants
HEADER_LENGTH = 20
FINGERPRINT_ATTRIBUTE_LENGTH = 8
FINGERPRINT_XOR = 0x5354554E
INTEGRITY_ATTRIBUTE_LENGTH = 24
SHA256_LENGTH_MINIMUM = 16  # RFC 8489 §14.6: truncated to 16 bytes or more, a multiple of four
SHA256_LENGTH_MAXIMUM = 32

_LENGTH = Struct("!H").pack


def message_fingerprint(before: bytes) -> int:
    """The value of FINGERPRINT for a message that has the bytes `before` in front of it."""
    length = len(before) - HEADER_LENGTH + FINGERPRINT_ATTRIBUTE_LENGTH
    return binascii.crc32(before[4:], binascii.crc32(before[:2] + _LENGTH(length))) ^ FINGERPRINT_XOR


def message_integrity(before: bytes, key: bytes) -> bytes:
    """The value of MESSAGE-INTEGRITY, 20 bytes."""
    length = len(before) - HEADER_LENGTH + INTEGRITY_ATTRIBUTE_LENGTH
    return hmac.digest(key, before[:2] + _LENGTH(length) + before[4:], "sha1")


def message_integrity_sha256(before: bytes, key: bytes, length: int = SHA256_LENGTH_MAXIMUM) -> bytes:
    """The value of MESSAGE-INTEGRITY-SHA256, truncated to `length` bytes."""
    total = len(before) - HEADER_LENGTH + 4 + length
    return hmac.digest(key, before[:2] + _LENGTH(total) + before[4:], "sha256")[:length]

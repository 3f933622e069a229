"""Record protection of DTLS 1.2 by an AEAD: RFC 5246 §6.2.3.3, RFC 5288 §3 (GCM), RFC 7905 §2 (ChaCha20-Poly1305).

Two ways to make the nonce, told apart by the suite's `explicit_nonce_length`:

* GCM: 4 bytes from the key block, then 8 bytes sent with each record. We send epoch and sequence number, so that a
  nonce is unique by construction (RFC 5288 §3 allows it; RFC 9325 §7.2.1 recommends it).
* ChaCha20-Poly1305: 12 bytes from the key block, exclusive or epoch and sequence number; nothing is sent.

One cipher object per direction is made once and kept.
"""

from __future__ import annotations

import struct

from cryptography.exceptions import InvalidTag

from protocol.dtls.record12 import MAXIMUM_PLAINTEXT, RECORD_HEADER, Record
from protocol.dtls.registry import ProtocolVersion
from protocol.dtls.suites import CipherSuite
from protocol.errors import DecodeError

__all__ = ["Protection12"]

_ADDITIONAL = struct.Struct("!QBHH")  # epoch and sequence number, type, version, plaintext length
_VERSION = int(ProtocolVersion.DTLS_1_2)
_TAG_LENGTH = 16


class Protection12:
    """The keys of one direction in one epoch."""

    __slots__ = ("_cipher", "_explicit", "_iv", "_mask", "overhead")

    def __init__(self, suite: CipherSuite, key: bytes, iv: bytes) -> None:
        self._cipher = suite.aead(key)
        self._explicit = suite.explicit_nonce_length == 8
        self._iv = iv
        self._mask = int.from_bytes(iv, "big")
        self.overhead = suite.explicit_nonce_length + _TAG_LENGTH

    def seal(self, content_type: int, number: int, plaintext: bytes) -> bytes:
        """The whole record, header included."""
        additional = _ADDITIONAL.pack(number, content_type, _VERSION, len(plaintext))
        header = RECORD_HEADER.pack(content_type, _VERSION, number, len(plaintext) + self.overhead)
        if self._explicit:
            explicit = number.to_bytes(8, "big")
            return header + explicit + self._cipher.encrypt(self._iv + explicit, plaintext, additional)
        return header + self._cipher.encrypt((self._mask ^ number).to_bytes(12, "big"), plaintext, additional)

    def open_untrusted(self, record: Record) -> bytes:
        content_type, number, fragment = record
        length = len(fragment) - self.overhead
        if not 0 <= length <= MAXIMUM_PLAINTEXT:
            raise DecodeError("record_length")
        if self._explicit:
            nonce = self._iv + fragment[:8]
            fragment = fragment[8:]
        else:
            nonce = (self._mask ^ number).to_bytes(12, "big")
        try:
            return self._cipher.decrypt(nonce, fragment, _ADDITIONAL.pack(number, content_type, _VERSION, length))
        except InvalidTag:
            raise DecodeError("record_mac") from None

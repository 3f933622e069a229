"""Certificate fingerprints as they stand in SDP: RFC 8122 §5, hash names of RFC 8122 §5 and RFC 4572.

    a=fingerprint:sha-256 4A:AD:B9:B1:…

The fingerprint is taken over the certificate's DER bytes exactly as they came over the wire, so a certificate that no
strict X.509 parser would accept (some peers send a broken version field) still has one.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass

from protocol.errors import DecodeError

__all__ = ["Fingerprint", "matches_any"]

# Specification constants (RFC 8122 §5). Weaker hashes (sha-1, md5, md2, sha-224) are refused: RFC 8827 §6.5 asks for
# SHA-256 or stronger in practice, and no browser offers anything else.

_LENGTHS = {"sha-256": 32, "sha-384": 48, "sha-512": 64}

# Implementation constants

_MAXIMUM_TEXT = 256  # "sha-512" and 64 bytes in hex are 199 characters
_HEX_PAIRS = re.compile(r"[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2})*")


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The hash of a certificate. `algorithm` is in lower case, as in the registry."""

    algorithm: str
    value: bytes

    def __post_init__(self) -> None:
        if self.algorithm not in _LENGTHS:
            raise DecodeError("fingerprint_algorithm", self.algorithm[:16])
        if len(self.value) != _LENGTHS[self.algorithm]:
            raise DecodeError("fingerprint_length")

    @classmethod
    def of(cls, certificate_der: bytes, algorithm: str = "sha-256") -> Fingerprint:
        if algorithm not in _LENGTHS:
            raise DecodeError("fingerprint_algorithm", algorithm[:16])
        return cls(algorithm, hashlib.new(algorithm.replace("-", ""), certificate_der).digest())

    @classmethod
    def parse_untrusted(cls, text: str | bytes) -> Fingerprint:
        """The value of an a=fingerprint attribute: the hash's name (any case), a space, hex pairs with colons."""
        if len(text) > _MAXIMUM_TEXT:
            raise DecodeError("fingerprint_malformed")
        if isinstance(text, bytes):
            try:
                text = text.decode("ascii")
            except UnicodeDecodeError:
                raise DecodeError("fingerprint_malformed") from None
        algorithm, _, digits = text.strip(" \r\n").partition(" ")
        algorithm, digits = algorithm.lower(), digits.strip(" ")
        if not algorithm or _HEX_PAIRS.fullmatch(digits) is None:
            raise DecodeError("fingerprint_malformed")
        return cls(algorithm, bytes.fromhex(digits.replace(":", "")))

    def matches(self, certificate_der: bytes) -> bool:
        """Whether this is the fingerprint of that certificate, compared in constant time."""
        return hmac.compare_digest(Fingerprint.of(certificate_der, self.algorithm).value, self.value)

    def __str__(self) -> str:
        return f"{self.algorithm} {self.value.hex(':').upper()}"


def matches_any(fingerprints: Iterable[Fingerprint], certificate_der: bytes) -> bool:
    """Whether any of the fingerprints is the certificate's. All are compared, so time does not tell which one."""
    found = False
    for fingerprint in fingerprints:
        found |= fingerprint.matches(certificate_der)
    return found

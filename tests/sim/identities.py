"""Certificates that are the same in every run: with a random nonce neither the bytes nor the lengths would replay."""

from __future__ import annotations

import functools
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from protocol.dtls import Identity

__all__ = ["identity"]

_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "simulation")])
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class _RepeatableKey:
    """A P-256 key that signs as RFC 6979 says: the nonce is derived from what is signed."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key

    def sign(self, data: bytes, algorithm: ec.ECDSA) -> bytes:
        return self._key.sign(data, ec.ECDSA(algorithm.algorithm, deterministic_signing=True))

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._key, name)


@functools.cache
def identity(name: str) -> Identity:
    """The identity of this name."""
    secret = int.from_bytes(hashlib.sha256(name.encode()).digest()[:31], "big")
    key = ec.derive_private_key(secret, ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_NAME)
        .issuer_name(_NAME)
        .public_key(key.public_key())
        .serial_number(secret >> 100 | 1)
        .not_valid_before(_BEGIN)
        .not_valid_after(_BEGIN + timedelta(days=365))
        .sign(key, hashes.SHA256(), ecdsa_deterministic=True)
    )
    return Identity(certificate.public_bytes(Encoding.DER), cast(ec.EllipticCurvePrivateKey, _RepeatableKey(key)))

"""TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256: RFC 7905 §2."""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from protocol.dtls.suites.suite import CipherSuite

__all__ = ["ECDHE_ECDSA_CHACHA20_POLY1305_SHA256"]

ECDHE_ECDSA_CHACHA20_POLY1305_SHA256 = CipherSuite(
    code=0xCCA9,
    name="TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    authentication="ecdsa",
    hash_name="sha256",
    key_length=32,
    fixed_iv_length=12,
    explicit_nonce_length=0,
    aead=ChaCha20Poly1305,
)

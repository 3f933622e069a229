"""TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384: RFC 5289 §3.2."""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocol.dtls.suites.suite import CipherSuite

__all__ = ["ECDHE_ECDSA_AES_256_GCM_SHA384"]

ECDHE_ECDSA_AES_256_GCM_SHA384 = CipherSuite(
    code=0xC02C,
    name="TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    authentication="ecdsa",
    hash_name="sha384",
    key_length=32,
    fixed_iv_length=4,
    explicit_nonce_length=8,
    aead=AESGCM,
)

"""TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256: RFC 5289 §3.2; mandatory in WebRTC (RFC 8827 §6.5)."""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocol.dtls.suites.suite import CipherSuite

__all__ = ["ECDHE_ECDSA_AES_128_GCM_SHA256"]

ECDHE_ECDSA_AES_128_GCM_SHA256 = CipherSuite(
    code=0xC02B,
    name="TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    authentication="ecdsa",
    hash_name="sha256",
    key_length=16,
    fixed_iv_length=4,
    explicit_nonce_length=8,
    aead=AESGCM,
)

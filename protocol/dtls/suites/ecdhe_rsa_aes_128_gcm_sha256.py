"""TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256: RFC 5289 §3.2. Only our client meets it: our own key is an elliptic one."""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocol.dtls.suites.suite import CipherSuite

__all__ = ["ECDHE_RSA_AES_128_GCM_SHA256"]

ECDHE_RSA_AES_128_GCM_SHA256 = CipherSuite(
    code=0xC02F,
    name="TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    authentication="rsa",
    hash_name="sha256",
    key_length=16,
    fixed_iv_length=4,
    explicit_nonce_length=8,
    aead=AESGCM,
)

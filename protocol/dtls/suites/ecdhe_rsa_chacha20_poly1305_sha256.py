"""TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256: RFC 7905 §2. Only our client meets it: our own key is an elliptic one."""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from protocol.dtls.suites.suite import CipherSuite

__all__ = ["ECDHE_RSA_CHACHA20_POLY1305_SHA256"]

ECDHE_RSA_CHACHA20_POLY1305_SHA256 = CipherSuite(
    code=0xCCA8,
    name="TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    authentication="rsa",
    hash_name="sha256",
    key_length=32,
    fixed_iv_length=12,
    explicit_nonce_length=0,
    aead=ChaCha20Poly1305,
)

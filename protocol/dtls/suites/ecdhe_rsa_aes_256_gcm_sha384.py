"""TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384: RFC 5289 §3.2. Only our client meets it: our own key is an elliptic one."""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocol.dtls.suites.suite import CipherSuite

__all__ = ["ECDHE_RSA_AES_256_GCM_SHA384"]

ECDHE_RSA_AES_256_GCM_SHA384 = CipherSuite(
    code=0xC030,
    name="TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    authentication="rsa",
    hash_name="sha384",
    key_length=32,
    fixed_iv_length=4,
    explicit_nonce_length=8,
    aead=AESGCM,
)

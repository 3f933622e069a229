"""The cipher suites of DTLS 1.2, best first. To add one: its file, an import line and an entry here."""

from __future__ import annotations

from protocol.dtls.suites.ecdhe_ecdsa_aes_128_gcm_sha256 import ECDHE_ECDSA_AES_128_GCM_SHA256
from protocol.dtls.suites.ecdhe_ecdsa_aes_256_gcm_sha384 import ECDHE_ECDSA_AES_256_GCM_SHA384
from protocol.dtls.suites.ecdhe_ecdsa_chacha20_poly1305_sha256 import ECDHE_ECDSA_CHACHA20_POLY1305_SHA256
from protocol.dtls.suites.ecdhe_rsa_aes_128_gcm_sha256 import ECDHE_RSA_AES_128_GCM_SHA256
from protocol.dtls.suites.ecdhe_rsa_aes_256_gcm_sha384 import ECDHE_RSA_AES_256_GCM_SHA384
from protocol.dtls.suites.ecdhe_rsa_chacha20_poly1305_sha256 import ECDHE_RSA_CHACHA20_POLY1305_SHA256
from protocol.dtls.suites.suite import Aead, CipherSuite

__all__ = ["SUITES", "Aead", "CipherSuite"]

SUITES: tuple[CipherSuite, ...] = (
    ECDHE_ECDSA_AES_128_GCM_SHA256,
    ECDHE_ECDSA_AES_256_GCM_SHA384,
    ECDHE_ECDSA_CHACHA20_POLY1305_SHA256,
    ECDHE_RSA_AES_128_GCM_SHA256,
    ECDHE_RSA_AES_256_GCM_SHA384,
    ECDHE_RSA_CHACHA20_POLY1305_SHA256,
)

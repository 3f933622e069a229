"""Numbers of the TLS and DTLS registries that we know, in IANA spelling. Unknown numbers stay plain ints.

https://www.iana.org/assignments/tls-parameters, https://www.iana.org/assignments/tls-extensiontype-values
"""

from __future__ import annotations

from enum import IntEnum

__all__ = [
    "CURVE_TYPE_NAMED",
    "EMPTY_RENEGOTIATION_INFO_SCSV",
    "NULL_COMPRESSION",
    "UNCOMPRESSED_POINT",
    "ClientCertificateType",
    "ContentType",
    "ExtensionType",
    "HandshakeType",
    "NamedGroup",
    "ProtocolVersion",
    "SignatureScheme",
]


class ProtocolVersion(IntEnum):
    DTLS_1_0 = 0xFEFF
    DTLS_1_2 = 0xFEFD
    DTLS_1_3 = 0xFEFC


class ContentType(IntEnum):
    CHANGE_CIPHER_SPEC = 20
    ALERT = 21
    HANDSHAKE = 22
    APPLICATION_DATA = 23


class HandshakeType(IntEnum):
    HELLO_REQUEST = 0
    CLIENT_HELLO = 1
    SERVER_HELLO = 2
    HELLO_VERIFY_REQUEST = 3
    CERTIFICATE = 11
    SERVER_KEY_EXCHANGE = 12
    CERTIFICATE_REQUEST = 13
    SERVER_HELLO_DONE = 14
    CERTIFICATE_VERIFY = 15
    CLIENT_KEY_EXCHANGE = 16
    FINISHED = 20


class ExtensionType(IntEnum):
    SUPPORTED_GROUPS = 10
    EC_POINT_FORMATS = 11
    SIGNATURE_ALGORITHMS = 13
    USE_SRTP = 14
    EXTENDED_MASTER_SECRET = 23
    SUPPORTED_VERSIONS = 43
    RENEGOTIATION_INFO = 65281


class NamedGroup(IntEnum):
    SECP256R1 = 23
    SECP384R1 = 24
    X25519 = 29


class SignatureScheme(IntEnum):
    """RFC 8446 §4.2.3; in DTLS 1.2 the same two bytes are (hash, signature) and fix no curve (RFC 5246 §7.4.1.4.1)."""

    RSA_PKCS1_SHA256 = 0x0401
    ECDSA_SECP256R1_SHA256 = 0x0403
    RSA_PKCS1_SHA384 = 0x0501
    ECDSA_SECP384R1_SHA384 = 0x0503
    RSA_PKCS1_SHA512 = 0x0601
    ECDSA_SECP521R1_SHA512 = 0x0603
    RSA_PSS_RSAE_SHA256 = 0x0804
    RSA_PSS_RSAE_SHA384 = 0x0805
    RSA_PSS_RSAE_SHA512 = 0x0806
    ED25519 = 0x0807


class ClientCertificateType(IntEnum):
    RSA_SIGN = 1
    ECDSA_SIGN = 64


CURVE_TYPE_NAMED = 3  # ECCurveType.named_curve, RFC 8422 §5.4
EMPTY_RENEGOTIATION_INFO_SCSV = 0x00FF  # RFC 5746 §3.3, a cipher suite that is none
NULL_COMPRESSION = 0
UNCOMPRESSED_POINT = 0

"""The public key inside a peer's certificate, without parsing X.509: RFC 5280 §4.1 by a small walk over its DER.

    Certificate ::= SEQUENCE { TBSCertificate ::= SEQUENCE {
        version [0] EXPLICIT OPTIONAL, serialNumber, signature, issuer, validity, subject, subjectPublicKeyInfo, … }, … }

What makes a certificate good is its fingerprint, which signalling carried; nothing else in it is looked at, and some
peers send a version field that a strict parser refuses. So step over what stands before the key and load only that.
"""

from __future__ import annotations

from typing import TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, SECP521R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from protocol.errors import DecodeError

__all__ = ["PublicKey", "public_key_untrusted", "subject_public_key_info_untrusted"]

PublicKey: TypeAlias = EllipticCurvePublicKey | Ed25519PublicKey | RSAPublicKey

# Specification constants (X.690)

_SEQUENCE = 0x30
_EXPLICIT_0 = 0xA0
_FIELDS_BEFORE_KEY = 5  # serialNumber, signature, issuer, validity, subject

# Implementation constants

_MAXIMUM_KEY_INFO = 2048  # an RSA-8192 key is about 1060 bytes
_RSA_BITS = range(2048, 8193)  # verification cost grows with the square,
_RSA_EXPONENT_BITS = 64  # and with this; keys in use have 17
_CURVES = (SECP256R1, SECP384R1, SECP521R1)


def _element_untrusted(data: bytes, position: int, end: int) -> tuple[int, int, int]:
    """(tag, start of the content, end of the content) of the element at `position`."""
    if end - position < 2:
        raise DecodeError("certificate_der")
    tag, length = data[position], data[position + 1]
    position += 2
    if length >= 0x80:
        width = length & 0x7F
        if not 1 <= width <= 3 or width > end - position:  # 0x80 is the indefinite form, not DER
            raise DecodeError("certificate_der")
        length = int.from_bytes(data[position : position + width], "big")
        position += width
    if length > end - position:
        raise DecodeError("certificate_der")
    return tag, position, position + length


def subject_public_key_info_untrusted(certificate: bytes) -> bytes:
    """The DER of SubjectPublicKeyInfo."""
    tag, start, end = _element_untrusted(certificate, 0, len(certificate))
    if tag != _SEQUENCE:
        raise DecodeError("certificate_der")
    tag, position, end = _element_untrusted(certificate, start, end)
    if tag != _SEQUENCE:
        raise DecodeError("certificate_der")
    tag, _, after = _element_untrusted(certificate, position, end)
    if tag == _EXPLICIT_0:
        position = after
    for _ in range(_FIELDS_BEFORE_KEY):
        _, _, position = _element_untrusted(certificate, position, end)
    tag, _, after = _element_untrusted(certificate, position, end)
    if tag != _SEQUENCE or after - position > _MAXIMUM_KEY_INFO:
        raise DecodeError("certificate_der")
    return bytes(certificate[position:after])


def public_key_untrusted(certificate: bytes) -> PublicKey:
    """The key, if it is of a kind we verify signatures with. Curve points are validated by the load."""
    try:
        key = load_der_public_key(subject_public_key_info_untrusted(certificate))
    except (ValueError, UnsupportedAlgorithm):
        raise DecodeError("certificate_key") from None
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, _CURVES):
        return key
    if isinstance(key, RSAPublicKey) and _is_affordable(key):
        return key
    if isinstance(key, Ed25519PublicKey):
        return key
    raise DecodeError("certificate_key")


def _is_affordable(key: RSAPublicKey) -> bool:
    return key.key_size in _RSA_BITS and key.public_numbers().e.bit_length() <= _RSA_EXPONENT_BITS

"""Signatures of the handshake: RFC 5246 §4.7, §7.4.1.4.1; RFC 8422 §5.10 (Ed25519); RFC 8446 §4.2.3 (RSA-PSS).

We sign with ECDSA P-256 only. Peers may sign with any scheme of the table.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from protocol.dtls.certificates import PublicKey
from protocol.dtls.registry import SignatureScheme
from protocol.errors import DecodeError

__all__ = ["OUR_SCHEMES", "SCHEMES", "sign", "verify_untrusted"]


@dataclass(frozen=True, slots=True)
class _Scheme:
    kind: str  # "ecdsa", "ed25519", "rsa" or "rsa-pss"
    hash: hashes.HashAlgorithm | None


_TABLE: dict[int, _Scheme] = {
    SignatureScheme.ECDSA_SECP256R1_SHA256: _Scheme("ecdsa", hashes.SHA256()),
    SignatureScheme.ECDSA_SECP384R1_SHA384: _Scheme("ecdsa", hashes.SHA384()),
    SignatureScheme.ECDSA_SECP521R1_SHA512: _Scheme("ecdsa", hashes.SHA512()),
    SignatureScheme.ED25519: _Scheme("ed25519", None),
    SignatureScheme.RSA_PKCS1_SHA256: _Scheme("rsa", hashes.SHA256()),
    SignatureScheme.RSA_PKCS1_SHA384: _Scheme("rsa", hashes.SHA384()),
    SignatureScheme.RSA_PKCS1_SHA512: _Scheme("rsa", hashes.SHA512()),
    SignatureScheme.RSA_PSS_RSAE_SHA256: _Scheme("rsa-pss", hashes.SHA256()),
    SignatureScheme.RSA_PSS_RSAE_SHA384: _Scheme("rsa-pss", hashes.SHA384()),
    SignatureScheme.RSA_PSS_RSAE_SHA512: _Scheme("rsa-pss", hashes.SHA512()),
}

SCHEMES: tuple[int, ...] = tuple(_TABLE)
"""What we verify, best first."""

OUR_SCHEMES: tuple[int, ...] = (
    SignatureScheme.ECDSA_SECP256R1_SHA256,
    SignatureScheme.ECDSA_SECP384R1_SHA384,
    SignatureScheme.ECDSA_SECP521R1_SHA512,
)
"""What we can sign with, best first. In 1.2 the code fixes the hash, not the curve; in 1.3 only the first is ours."""


def sign(key: ec.EllipticCurvePrivateKey, scheme: int, data: bytes) -> bytes:
    algorithm = _TABLE[scheme].hash or hashes.SHA256()
    return key.sign(data, ec.ECDSA(algorithm))


def verify_untrusted(key: PublicKey, scheme: int, signature: bytes, data: bytes) -> None:
    """Raises DecodeError("signature") unless `signature` is the key owner's over `data`."""
    entry = _TABLE.get(scheme)
    if entry is None:
        raise DecodeError("signature_scheme")
    kind, algorithm = entry.kind, entry.hash
    try:
        if isinstance(key, ec.EllipticCurvePublicKey) and kind == "ecdsa" and algorithm is not None:
            key.verify(signature, data, ec.ECDSA(algorithm))
        elif isinstance(key, Ed25519PublicKey) and kind == "ed25519":
            key.verify(signature, data)
        elif isinstance(key, RSAPublicKey) and kind == "rsa" and algorithm is not None:
            key.verify(signature, data, padding.PKCS1v15(), algorithm)
        elif isinstance(key, RSAPublicKey) and kind == "rsa-pss" and algorithm is not None:
            pss = padding.PSS(padding.MGF1(algorithm), algorithm.digest_size)
            key.verify(signature, data, pss, algorithm)
        else:
            raise DecodeError("signature_scheme")
    except (InvalidSignature, ValueError):
        raise DecodeError("signature") from None

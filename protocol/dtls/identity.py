"""Who we are in DTLS: a self-signed P-256 certificate, made for one process and thrown away with it (RFC 8827 §6.5).

The key comes from the library's own generator. `entropy` gives the serial number, `now_wall` the validity, which
nobody checks: the fingerprint in the answer is what counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from protocol.dtls.fingerprint import Fingerprint
from protocol.wire import Entropy

__all__ = ["Identity"]

_VALID_BEFORE = timedelta(days=1)  # the peer's clock may be behind
_VALID_AFTER = timedelta(days=30)  # as browsers do
_COMMON_NAME = "WebRTC"  # tells nothing of who runs us


@dataclass(frozen=True, slots=True, repr=False)
class Identity:
    certificate_der: bytes
    private_key: ec.EllipticCurvePrivateKey

    @classmethod
    def generate(cls, now_wall: datetime, entropy: Entropy | None = None) -> Identity:
        key = ec.generate_private_key(ec.SECP256R1())
        if entropy is None:
            serial = x509.random_serial_number()
        else:
            serial = int.from_bytes(b"\x40" + entropy(15), "big")  # positive and of full length
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _COMMON_NAME)])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(serial)
            .not_valid_before(now_wall - _VALID_BEFORE)
            .not_valid_after(now_wall + _VALID_AFTER)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate.public_bytes(Encoding.DER), key)

    def fingerprint(self, hash: str = "sha-256") -> Fingerprint:
        return Fingerprint.of(self.certificate_der, hash)

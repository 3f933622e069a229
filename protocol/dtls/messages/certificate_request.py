"""CertificateRequest: RFC 5246 §7.4.4.

struct {
    ClientCertificateType certificate_types<1..2^8-1>;
    SignatureAndHashAlgorithm supported_signature_algorithms<2..2^16-2>;
    DistinguishedName certificate_authorities<0..2^16-1>;
} CertificateRequest;
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from protocol.dtls.registry import HandshakeType
from protocol.errors import DecodeError
from protocol.wire import Reader, Writer

__all__ = ["CertificateRequest", "parse_certificate_request_untrusted"]


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    message_type: ClassVar[HandshakeType] = HandshakeType.CERTIFICATE_REQUEST

    certificate_types: tuple[int, ...]
    signature_schemes: tuple[int, ...]
    authorities: bytes = b""

    def encode(self) -> bytes:
        writer = Writer()
        writer.opaque(bytes(self.certificate_types), 1)
        with writer.block(2):
            for scheme in self.signature_schemes:
                writer.u16(scheme)
        writer.opaque(self.authorities, 2)
        return writer.finish()


def parse_certificate_request_untrusted(body: bytes) -> CertificateRequest:
    reader = Reader(body)
    types = tuple(reader.opaque(1))
    schemes = reader.block(2)
    if not types or not schemes.remaining or schemes.remaining % 2:
        raise DecodeError("certificate_request_malformed")
    signature_schemes = tuple(schemes.u16() for _ in range(schemes.remaining // 2))
    authorities = reader.opaque(2)
    reader.finish()
    return CertificateRequest(types, signature_schemes, authorities)

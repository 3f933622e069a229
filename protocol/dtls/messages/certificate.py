"""Certificate: RFC 5246 §7.4.2.

    struct { ASN.1Cert certificate_list<0..2^24-1>; } Certificate;      ASN.1Cert is opaque<1..2^24-1>

Only the first certificate matters: its fingerprint is what signalling vouches for (RFC 8827 §6.5).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from protocol.dtls.registry import HandshakeType
from protocol.errors import DecodeError
from protocol.wire import Reader, Writer

__all__ = ["Certificate", "parse_certificate_untrusted"]

_MAXIMUM_CHAIN = 16


@dataclass(frozen=True, slots=True)
class Certificate:
    message_type: ClassVar[HandshakeType] = HandshakeType.CERTIFICATE

    chain: tuple[bytes, ...]

    def encode(self) -> bytes:
        writer = Writer()
        with writer.block(3):
            for certificate in self.chain:
                writer.opaque(certificate, 3)
        return writer.finish()


def parse_certificate_untrusted(body: bytes) -> Certificate:
    reader = Reader(body)
    block = reader.block(3)
    reader.finish()
    chain: list[bytes] = []
    while block.remaining:
        certificate = block.opaque(3)
        if not certificate or len(chain) == _MAXIMUM_CHAIN:
            raise DecodeError("certificate_chain")
        chain.append(certificate)
    return Certificate(tuple(chain))

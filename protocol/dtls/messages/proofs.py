"""The messages that prove and close a flight: ServerHelloDone, CertificateVerify, Finished (RFC 5246 §7.4.5, .8, .9).

struct { } ServerHelloDone;
struct { SignatureAndHashAlgorithm algorithm; opaque signature<0..2^16-1>; } CertificateVerify;
struct { opaque verify_data[12]; } Finished;
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from protocol.dtls.registry import HandshakeType
from protocol.errors import DecodeError
from protocol.wire import Reader, Writer

__all__ = [
    "CertificateVerify",
    "Finished",
    "ServerHelloDone",
    "parse_certificate_verify_untrusted",
    "parse_finished_untrusted",
    "parse_server_hello_done_untrusted",
]

_VERIFY_DATA_LENGTH = 12


@dataclass(frozen=True, slots=True)
class ServerHelloDone:
    message_type: ClassVar[HandshakeType] = HandshakeType.SERVER_HELLO_DONE

    def encode(self) -> bytes:
        return b""


def parse_server_hello_done_untrusted(body: bytes) -> ServerHelloDone:
    if body:
        raise DecodeError("trailing_bytes")
    return ServerHelloDone()


@dataclass(frozen=True, slots=True)
class CertificateVerify:
    message_type: ClassVar[HandshakeType] = HandshakeType.CERTIFICATE_VERIFY

    signature_scheme: int
    signature: bytes

    def encode(self) -> bytes:
        writer = Writer()
        writer.u16(self.signature_scheme)
        writer.opaque(self.signature, 2)
        return writer.finish()


def parse_certificate_verify_untrusted(body: bytes) -> CertificateVerify:
    reader = Reader(body)
    scheme = reader.u16()
    signature = reader.opaque(2)
    reader.finish()
    return CertificateVerify(scheme, signature)


@dataclass(frozen=True, slots=True)
class Finished:
    message_type: ClassVar[HandshakeType] = HandshakeType.FINISHED

    verify_data: bytes

    def encode(self) -> bytes:
        return self.verify_data


def parse_finished_untrusted(body: bytes) -> Finished:
    if len(body) != _VERIFY_DATA_LENGTH:
        raise DecodeError("finished_length")
    return Finished(bytes(body))

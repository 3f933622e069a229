"""HelloVerifyRequest: RFC 6347 §4.2.1. Our client answers it, a bare listener sends it.

    struct { ProtocolVersion server_version; opaque cookie<0..2^8-1>; } HelloVerifyRequest;

The version is not looked at: it may be DTLS 1.0 whatever will be negotiated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from protocol.dtls.registry import HandshakeType
from protocol.wire import Reader, Writer

__all__ = ["HelloVerifyRequest", "parse_hello_verify_request_untrusted"]


@dataclass(frozen=True, slots=True)
class HelloVerifyRequest:
    message_type: ClassVar[HandshakeType] = HandshakeType.HELLO_VERIFY_REQUEST

    version: int
    cookie: bytes

    def encode(self) -> bytes:
        writer = Writer()
        writer.u16(self.version)
        writer.opaque(self.cookie, 1)
        return writer.finish()


def parse_hello_verify_request_untrusted(body: bytes) -> HelloVerifyRequest:
    reader = Reader(body)
    version = reader.u16()
    cookie = reader.opaque(1)
    reader.finish()
    return HelloVerifyRequest(version, cookie)

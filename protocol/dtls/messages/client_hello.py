"""ClientHello: RFC 5246 §7.4.1.2 with the cookie of RFC 6347 §4.2.1. The same on the wire in DTLS 1.2 and 1.3.

struct {
    ProtocolVersion client_version;
    Random random;                                 32 bytes
    SessionID session_id<0..32>;
    opaque cookie<0..2^8-1>;
    CipherSuite cipher_suites<2..2^16-1>;
    CompressionMethod compression_methods<1..2^8-1>;
    Extension extensions<0..2^16-1>;               may be absent
} ClientHello;
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from protocol.dtls.extensions import Extensions, parse_extensions_untrusted, write_extensions
from protocol.dtls.registry import HandshakeType
from protocol.errors import DecodeError
from protocol.wire import Reader, Writer

__all__ = ["ClientHello", "parse_client_hello_untrusted"]


@dataclass(frozen=True, slots=True)
class ClientHello:
    message_type: ClassVar[HandshakeType] = HandshakeType.CLIENT_HELLO

    version: int
    random: bytes
    cipher_suites: tuple[int, ...]
    session_id: bytes = b""
    cookie: bytes = b""
    compression_methods: bytes = b"\0"
    extensions: Extensions = field(default_factory=dict)

    def encode(self) -> bytes:
        writer = Writer()
        writer.u16(self.version)
        writer.put(self.random)
        writer.opaque(self.session_id, 1)
        writer.opaque(self.cookie, 1)
        with writer.block(2):
            for suite in self.cipher_suites:
                writer.u16(suite)
        writer.opaque(self.compression_methods, 1)
        write_extensions(writer, self.extensions)
        return writer.finish()


def parse_client_hello_untrusted(body: bytes) -> ClientHello:
    reader = Reader(body)
    version = reader.u16()
    random = reader.take(32)
    session_id = reader.opaque(1)
    cookie = reader.opaque(1)
    suites = reader.block(2)
    if len(session_id) > 32 or not suites.remaining or suites.remaining % 2:
        raise DecodeError("hello_malformed")
    cipher_suites = tuple(suites.u16() for _ in range(suites.remaining // 2))
    compression_methods = reader.opaque(1)
    extensions = parse_extensions_untrusted(reader.rest())
    return ClientHello(version, random, cipher_suites, session_id, cookie, compression_methods, extensions)

"""ServerHello: RFC 5246 §7.4.1.3.

struct {
    ProtocolVersion server_version;
    Random random;
    SessionID session_id<0..32>;
    CipherSuite cipher_suite;
    CompressionMethod compression_method;
    Extension extensions<0..2^16-1>;               may be absent
} ServerHello;
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from protocol.dtls.extensions import Extensions, parse_extensions_untrusted, write_extensions
from protocol.dtls.registry import HandshakeType
from protocol.errors import DecodeError
from protocol.wire import Reader, Writer

__all__ = ["ServerHello", "parse_server_hello_untrusted"]


@dataclass(frozen=True, slots=True)
class ServerHello:
    message_type: ClassVar[HandshakeType] = HandshakeType.SERVER_HELLO

    version: int
    random: bytes
    cipher_suite: int
    session_id: bytes = b""
    compression_method: int = 0
    extensions: Extensions = field(default_factory=dict)

    def encode(self) -> bytes:
        writer = Writer()
        writer.u16(self.version)
        writer.put(self.random)
        writer.opaque(self.session_id, 1)
        writer.u16(self.cipher_suite)
        writer.u8(self.compression_method)
        write_extensions(writer, self.extensions)
        return writer.finish()


def parse_server_hello_untrusted(body: bytes) -> ServerHello:
    reader = Reader(body)
    version = reader.u16()
    random = reader.take(32)
    session_id = reader.opaque(1)
    if len(session_id) > 32:
        raise DecodeError("hello_malformed")
    cipher_suite = reader.u16()
    compression_method = reader.u8()
    extensions = parse_extensions_untrusted(reader.rest())
    return ServerHello(version, random, cipher_suite, session_id, compression_method, extensions)

"""ServerKeyExchange and ClientKeyExchange of ECDHE: RFC 8422 §5.4, §5.7.

struct {
    ECCurveType curve_type = named_curve(3); NamedCurve namedcurve; ECPoint public<1..2^8-1>;    what is signed
    SignatureAndHashAlgorithm algorithm; opaque signature<0..2^16-1>;
} ServerKeyExchange;

struct { ECPoint ecdh_Yc<1..2^8-1>; } ClientKeyExchange;
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from protocol.dtls.registry import CURVE_TYPE_NAMED, HandshakeType
from protocol.errors import DecodeError
from protocol.wire import Reader, Writer

__all__ = [
    "ClientKeyExchange",
    "ServerKeyExchange",
    "parse_client_key_exchange_untrusted",
    "parse_server_key_exchange_untrusted",
]


@dataclass(frozen=True, slots=True)
class ServerKeyExchange:
    message_type: ClassVar[HandshakeType] = HandshakeType.SERVER_KEY_EXCHANGE

    group: int
    public: bytes
    signature_scheme: int = 0
    signature: bytes = b""

    def parameters(self) -> bytes:
        """ServerECDHParams, the part that is signed after the two randoms."""
        writer = Writer()
        writer.u8(CURVE_TYPE_NAMED)
        writer.u16(self.group)
        writer.opaque(self.public, 1)
        return writer.finish()

    def encode(self) -> bytes:
        writer = Writer()
        writer.put(self.parameters())
        writer.u16(self.signature_scheme)
        writer.opaque(self.signature, 2)
        return writer.finish()


def parse_server_key_exchange_untrusted(body: bytes) -> ServerKeyExchange:
    reader = Reader(body)
    if reader.u8() != CURVE_TYPE_NAMED:
        raise DecodeError("curve_type")
    group = reader.u16()
    public = reader.opaque(1)
    scheme = reader.u16()
    signature = reader.opaque(2)
    reader.finish()
    return ServerKeyExchange(group, public, scheme, signature)


@dataclass(frozen=True, slots=True)
class ClientKeyExchange:
    message_type: ClassVar[HandshakeType] = HandshakeType.CLIENT_KEY_EXCHANGE

    public: bytes

    def encode(self) -> bytes:
        writer = Writer()
        writer.opaque(self.public, 1)
        return writer.finish()


def parse_client_key_exchange_untrusted(body: bytes) -> ClientKeyExchange:
    reader = Reader(body)
    public = reader.opaque(1)
    reader.finish()
    if not public:
        raise DecodeError("key_share")
    return ClientKeyExchange(public)

"""WebSocket (RFC 6455), both roles, without I/O: the opening handshake and the frames. No extensions, no subprotocols."""

from protocol.websocket.frames import (
    Close,
    FrameReader,
    Message,
    Opcode,
    Ping,
    Pong,
    WebSocketEvent,
    encode_frame,
    mask,
)
from protocol.websocket.handshake import ClientHandshake, ServerHandshake

__all__ = [
    "ClientHandshake",
    "Close",
    "FrameReader",
    "Message",
    "Opcode",
    "Ping",
    "Pong",
    "ServerHandshake",
    "WebSocketEvent",
    "encode_frame",
    "mask",
]

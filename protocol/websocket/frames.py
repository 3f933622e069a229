"""Frames of a WebSocket (RFC 6455 §5): a message is one frame or several, control frames may come in between.

    byte 0   FIN | RSV1-3 (zero: we offer no extension) | opcode
    byte 1   MASK | length: 0-125, or 126: the next two bytes have it, 127: the next eight
    then     the masking key, 4 bytes, in what a client sends; then the payload

A client masks whatever it sends, with a fresh key that nobody can foretell (§5.3). The payload is masked as one array, so
that a message of many audio frames costs little more than a short one.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple, TypeAlias

import numpy as np

from protocol.errors import DecodeError

__all__ = ["Close", "FrameReader", "Message", "Opcode", "Ping", "Pong", "WebSocketEvent", "encode_frame", "mask"]

# Specification constants, RFC 6455 §5.2, §5.5
FIN = 0x80
RESERVED = 0x70
MASKED = 0x80
LENGTH_16, LENGTH_64 = 126, 127
MAX_CONTROL_PAYLOAD = 125
KEY_LENGTH = 4
CLOSE_CODE = struct.Struct("!H")
NO_CODE = 1005  # §7.4.1: what a close without a code is taken for; never sent

# Implementation constants
ARRAY_BYTES = 768  # longer payloads are masked by numpy, whose calls cost more to begin with
MAX_FRAGMENTS = 1024  # of one message: each costs us more than its bytes


class Opcode(IntEnum):
    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class Ping(NamedTuple):
    payload: bytes


class Pong(NamedTuple):
    payload: bytes


class Close(NamedTuple):
    """The other side will send nothing more; answer with a close of ours if there was none."""

    code: int
    reason: str


Message: TypeAlias = str | bytes
WebSocketEvent: TypeAlias = Message | Ping | Pong | Close


def mask(payload: bytes | bytearray | memoryview, key: bytes) -> bytes:
    """Each byte XORed with that of the key, 4 bytes long, which is repeated (§5.3). The same again undoes it."""
    length = len(payload)
    if length < ARRAY_BYTES:
        whole = (key * (length // KEY_LENGTH + 1))[:length]
        return (int.from_bytes(payload, "little") ^ int.from_bytes(whole, "little")).to_bytes(length, "little")
    words = length // KEY_LENGTH
    head = (np.frombuffer(payload, np.uint32, words) ^ np.frombuffer(key, np.uint32)).tobytes()
    rest = bytes(byte ^ key[place] for place, byte in enumerate(payload[words * KEY_LENGTH :]))
    return head + rest


def encode_frame(opcode: Opcode, payload: bytes, key: bytes | None) -> bytes:
    """One unfragmented frame; `key`, 4 unpredictable bytes, from a client, None from a server."""
    length = len(payload)
    masked = 0 if key is None else MASKED
    if length < LENGTH_16:
        head = bytes((FIN | opcode, masked | length))
    elif length < 1 << 16:
        head = struct.pack("!BBH", FIN | opcode, masked | LENGTH_16, length)
    else:
        head = struct.pack("!BBQ", FIN | opcode, masked | LENGTH_64, length)
    if key is None:
        return head + payload
    return head + key + mask(payload, key)


class FrameReader:
    """Bytes in, events out. Nothing can be read after a DecodeError, nor after a `Close`."""

    __slots__ = ("_buffer", "_closed", "_fragments", "_is_client", "_max_bytes", "_message_bytes", "_opcode")

    def __init__(self, *, is_client: bool, max_message_bytes: int) -> None:
        self._is_client = is_client  # what comes is from a server, so unmasked
        self._max_bytes = max_message_bytes
        self._buffer = bytearray()  # a frame that is not complete yet: at most one message and its header
        self._fragments: list[bytes] = []
        self._message_bytes = 0
        self._opcode: Opcode | None = None  # of the message whose fragments are coming
        self._closed = False

    def decode_untrusted(self, data: bytes | bytearray) -> list[WebSocketEvent]:
        """What is complete with `data`.

        Raises DecodeError, its reason: websocket_reserved_bits, _opcode, _masking, _control, _continuation, _oversize,
        _fragments, _close, _not_utf8. What came before it in the same data is lost with it.
        """
        events: list[WebSocketEvent] = []
        continued = bool(self._buffer)
        if continued:
            self._buffer += data
            data = self._buffer
        position, end = 0, len(data)
        view = memoryview(data)
        while not self._closed:
            opcode, start, stop, key = self._read_head(view, position, end)
            if opcode is None or stop > end:
                break
            payload = bytes(view[start:stop]) if key is None else mask(view[start:stop], key)
            event = self._take(opcode, bool(view[position] & FIN), payload)
            if event is not None:
                events.append(event)
            position = stop
        view.release()
        if continued:
            del self._buffer[:position]  # in place: a long message that trickles in is not copied for each byte
        elif position < end:
            self._buffer += data[position:]
        return events

    def _read_head(self, view: memoryview, at: int, end: int) -> tuple[Opcode | None, int, int, bytes | None]:
        """Opcode (None: too little has come to say), where the payload begins and ends, the key."""
        if end - at < 2:
            return None, 0, 0, None
        first, second = view[at], view[at + 1]
        if first & RESERVED:
            raise DecodeError("websocket_reserved_bits")
        try:
            opcode = Opcode(first & 0x0F)
        except ValueError:
            raise DecodeError("websocket_opcode") from None
        if bool(second & MASKED) is self._is_client:
            raise DecodeError("websocket_masking")
        length, start = second & 0x7F, at + 2
        if opcode >= Opcode.CLOSE and (length > MAX_CONTROL_PAYLOAD or not first & FIN):
            raise DecodeError("websocket_control")
        if length >= LENGTH_16:
            start += 2 if length == LENGTH_16 else 8
            if start > end:
                return None, 0, 0, None
            length = int.from_bytes(view[at + 2 : start], "big")
        if opcode < Opcode.CLOSE and self._message_bytes + length > self._max_bytes:
            raise DecodeError("websocket_oversize")
        if self._is_client:
            return opcode, start, start + length, None
        return opcode, start + KEY_LENGTH, start + KEY_LENGTH + length, bytes(view[start : start + KEY_LENGTH])

    def _take(self, opcode: Opcode, final: bool, payload: bytes) -> WebSocketEvent | None:
        if opcode is Opcode.BINARY and final and self._opcode is None:  # nearly all of them
            return payload
        if opcode >= Opcode.CLOSE:
            return self._take_control(opcode, payload)
        if (opcode is Opcode.CONTINUATION) is (self._opcode is None):
            raise DecodeError("websocket_continuation")
        if self._opcode is None:
            self._opcode = opcode
        self._fragments.append(payload)
        self._message_bytes += len(payload)
        if len(self._fragments) > MAX_FRAGMENTS:
            raise DecodeError("websocket_fragments")
        if not final:
            return None
        whole, text = b"".join(self._fragments), self._opcode is Opcode.TEXT
        self._fragments, self._message_bytes, self._opcode = [], 0, None
        return _decode_text_untrusted(whole) if text else whole

    def _take_control(self, opcode: Opcode, payload: bytes) -> Ping | Pong | Close:
        if opcode is Opcode.PING:
            return Ping(payload)
        if opcode is Opcode.PONG:
            return Pong(payload)
        self._closed = True
        if not payload:
            return Close(NO_CODE, "")
        if len(payload) < CLOSE_CODE.size:
            raise DecodeError("websocket_close")
        return Close(CLOSE_CODE.unpack_from(payload)[0], _decode_text_untrusted(payload[CLOSE_CODE.size :]))


def _decode_text_untrusted(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise DecodeError("websocket_not_utf8") from None

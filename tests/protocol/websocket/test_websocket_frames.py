"""WebSocket frames: RFC 6455's own examples, another implementation (wsproto) on the other side, and noise."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto.frame_protocol import FrameProtocol
from wsproto.frame_protocol import Opcode as TheirOpcode

from protocol.errors import DecodeError
from protocol.websocket import Close, FrameReader, Message, Opcode, Ping, Pong, WebSocketEvent, encode_frame, mask

KEY = bytes.fromhex("37fa213d")
MAX_BYTES = 70_000

MESSAGES = st.lists(st.text(max_size=40) | st.binary(max_size=300) | st.integers(0, MAX_BYTES).map(bytes), max_size=6)


def encode(message: Message, key: bytes | None) -> bytes:
    if isinstance(message, str):
        return encode_frame(Opcode.TEXT, message.encode(), key)
    return encode_frame(Opcode.BINARY, message, key)


def read(data: bytes, *, is_client: bool, size: int | None = None) -> list[WebSocketEvent]:
    reader = FrameReader(is_client=is_client, max_message_bytes=MAX_BYTES)
    step = size or len(data) or 1
    return [event for at in range(0, len(data), step) for event in reader.decode_untrusted(data[at : at + step])]


@pytest.mark.parametrize(
    ("wire", "is_client", "events"),
    [
        ("81 05 48656c6c6f", True, ["Hello"]),
        ("81 85 37fa213d 7f9f4d5158", False, ["Hello"]),
        ("01 03 48656c  80 02 6c6f", True, ["Hello"]),
        ("89 05 48656c6c6f", True, [Ping(b"Hello")]),
        ("8a 85 37fa213d 7f9f4d5158", False, [Pong(b"Hello")]),
        ("82 7e 0100" + "ab" * 256, True, [b"\xab" * 256]),
        ("82 7f 0000000000010000" + "ab" * 65536, True, [b"\xab" * 65536]),
        ("01 03 48656c  89 00  80 02 6c6f", True, [Ping(b""), "Hello"]),
        ("88 00", True, [Close(1005, "")]),
        ("88 05 03e8 627965  81 05 48656c6c6f", True, [Close(1000, "bye")]),
    ],
    ids=lambda value: str(value)[:30],
)
def test_the_examples_of_the_rfc_are_read(wire: str, is_client: bool, events: list[WebSocketEvent]):
    data = bytes.fromhex(wire)
    assert read(data, is_client=is_client) == events
    assert read(data, is_client=is_client, size=7) == events


def test_the_examples_of_the_rfc_are_written():
    assert encode_frame(Opcode.TEXT, b"Hello", None) == bytes.fromhex("810548656c6c6f")
    assert encode_frame(Opcode.TEXT, b"Hello", KEY) == bytes.fromhex("818537fa213d7f9f4d5158")
    assert encode_frame(Opcode.BINARY, bytes(256), None)[:4] == bytes.fromhex("827e0100")
    assert encode_frame(Opcode.BINARY, bytes(65536), None)[:10] == bytes.fromhex("827f0000000000010000")


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.binary(max_size=4000), st.binary(min_size=4, max_size=4))
def test_masking_is_what_the_rfc_says_byte_by_byte(payload: bytes, key: bytes):
    masked = mask(payload, key)
    assert masked == bytes(byte ^ key[place % 4] for place, byte in enumerate(payload))
    assert mask(masked, key) == payload
    assert mask(memoryview(b"x" + payload)[1:], key) == masked


@settings(max_examples=30, deadline=None, derandomize=True)
@given(MESSAGES, st.none() | st.binary(min_size=4, max_size=4), st.integers(20, 5000))
def test_messages_come_out_as_they_went_in_however_they_are_cut(messages: list[Message], key: bytes | None, size: int):
    wire = b"".join(encode(message, key) for message in messages)
    assert read(wire, is_client=key is None, size=size) == messages


@settings(max_examples=40, deadline=None, derandomize=True)
@given(MESSAGES, st.booleans())
def test_another_implementation_reads_what_we_write(messages: list[Message], client: bool):
    theirs = FrameProtocol(client=not client, extensions=[])
    theirs.receive_bytes(b"".join(encode(message, KEY if client else None) for message in messages))
    heard: list[Message] = []
    pieces: list[Message] = []
    for frame in theirs.received_frames():
        pieces.append(frame.payload if frame.opcode is TheirOpcode.TEXT else bytes(frame.payload))
        if frame.message_finished:
            heard.append("".join(pieces) if frame.opcode is TheirOpcode.TEXT else b"".join(pieces))
            pieces = []
    assert heard == messages


@settings(max_examples=40, deadline=None, derandomize=True)
@given(MESSAGES, st.booleans(), st.booleans())
def test_we_read_what_another_implementation_writes_in_fragments_too(messages: list[Message], client: bool, cut: bool):
    theirs = FrameProtocol(client=client, extensions=[])
    wire = b""
    for message in messages:
        middle = len(message) // 2
        if cut:
            wire += theirs.send_data(message[:middle], fin=False) + theirs.ping(b"now")
        wire += theirs.send_data(message[middle:] if cut else message, fin=True)
    expected = [event for message in messages for event in ((Ping(b"now"), message) if cut else (message,))]
    assert read(wire, is_client=not client) == expected


@pytest.mark.parametrize(
    ("wire", "reason"),
    [
        ("c1 01 61", "websocket_reserved_bits"),
        ("83 00", "websocket_opcode"),
        ("8b 00", "websocket_opcode"),
        ("81 81 37fa213d 56", "websocket_masking"),
        ("89 7e 00c8" + "00" * 200, "websocket_control"),
        ("09 00", "websocket_control"),
        ("80 01 61", "websocket_continuation"),
        ("01 01 61 81 01 61", "websocket_continuation"),
        ("01 01 61 82 01 61", "websocket_continuation"),
        ("82 7f 7fffffffffffffff", "websocket_oversize"),
        ("02 7e ffff" + "00" * 65535 + "80 7e ffff", "websocket_oversize"),
        ("02 00" + "00 00" * 1024, "websocket_fragments"),
        ("88 01 03", "websocket_close"),
        ("88 03 03e8 ff", "websocket_not_utf8"),
        ("81 02 c328", "websocket_not_utf8"),
        ("81 03 eda080", "websocket_not_utf8"),
    ],
)
def test_bad_frames_are_refused_with_a_reason(wire: str, reason: str):
    with pytest.raises(DecodeError) as caught:
        read(bytes.fromhex(wire), is_client=True)
    assert caught.value.reason == reason


def test_a_server_refuses_frames_that_are_not_masked():
    with pytest.raises(DecodeError, match="websocket_masking"):
        read(encode("hello", None), is_client=False)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=300), st.booleans(), st.integers(1, 40))
def test_any_bytes_are_read_or_refused_the_same_whole_and_in_pieces(noise: bytes, is_client: bool, size: int):
    results: list[list[WebSocketEvent] | None] = [None, None]
    for place, step in enumerate((None, size)):
        with contextlib.suppress(DecodeError):
            results[place] = read(noise, is_client=is_client, size=step)
    assert results[0] == results[1]

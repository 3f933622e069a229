"""The opening handshake of a WebSocket: with wsproto on the other side, and what is refused."""

from __future__ import annotations

import contextlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Request

from protocol.errors import DecodeError
from protocol.websocket import ClientHandshake, ServerHandshake

REQUEST = (
    b"GET /chat HTTP/1.1\r\nHost: server.example\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
SWITCH = b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"


def client() -> ClientHandshake:
    return ClientHandshake("server.example:80", "/chat?x=1", random.Random(1).randbytes)


def test_the_accept_token_is_that_of_the_rfc_and_frames_behind_the_request_are_kept():
    server = ServerHandshake()
    assert not server.decode_untrusted(REQUEST[:50])
    assert server.decode_untrusted(REQUEST[50:] + b"\x81\x80")
    assert server.fault is None
    assert dict(server.headers)[b"host"] == b"server.example"
    answer, first = server.accept()
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in answer
    assert first == b"\x81\x80"


def test_our_client_and_our_server_agree():
    asking, answering = client(), ServerHandshake()
    assert answering.decode_untrusted(asking.request)
    answer, first = answering.accept()
    assert first == b""
    assert asking.decode_untrusted(answer[:20]) is None
    assert asking.decode_untrusted(answer[20:] + b"\x81\x02{}") == b"\x81\x02{}"


def test_our_client_and_the_server_of_wsproto_agree():
    asking, theirs = client(), WSConnection(ConnectionType.SERVER)
    theirs.receive_data(asking.request)
    [request] = theirs.events()
    assert isinstance(request, Request)
    assert (request.host, request.target) == ("server.example:80", "/chat?x=1")
    assert asking.decode_untrusted(theirs.send(AcceptConnection())) == b""


def test_the_client_of_wsproto_and_our_server_agree():
    theirs, answering = WSConnection(ConnectionType.CLIENT), ServerHandshake()
    assert answering.decode_untrusted(theirs.send(Request(host="server.example", target="/")))
    theirs.receive_data(answering.accept()[0])
    assert [type(event) for event in theirs.events()] == [AcceptConnection]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x16\x03\x01\x00\x05hello", "websocket_no_http"),
        (b"", "websocket_no_http"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "websocket_refused"),
        (b"HTTP/1.1 302 x\r\nLocation: /\r\n\r\n", "websocket_refused"),
        (b"HTTP/1.1 101 x\r\n\r\n", "websocket_refused"),
        (SWITCH + b"\r\n", "websocket_accept"),
        (SWITCH + b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n", "websocket_accept"),
        (b"HTTP/1.1 101 x\r\nA: " + b"b" * 100_000, "websocket_no_http"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_does_not_switch_to_websocket_is_refused_with_a_reason(data: bytes, reason: str):
    with pytest.raises(DecodeError) as caught:
        client().decode_untrusted(data)
    assert caught.value.reason == reason


@pytest.mark.parametrize("header", [b"Sec-WebSocket-Extensions: permessage-deflate", b"Sec-WebSocket-Protocol: chat"])
def test_what_was_not_asked_for_is_refused(header: bytes):
    asking, answering = client(), ServerHandshake()
    answering.decode_untrusted(asking.request)
    answer = answering.accept()[0].replace(b"\r\n\r\n", b"\r\n" + header + b"\r\n\r\n")
    with pytest.raises(DecodeError, match="websocket_extension"):
        asking.decode_untrusted(answer)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (REQUEST.replace(b"GET", b"PUT"), 400),
        (REQUEST.replace(b"Upgrade: WebSocket\r\n", b""), 400),
        (REQUEST.replace(b", Upgrade", b""), 400),
        (REQUEST.replace(b"Sec-WebSocket-Key", b"X-Key"), 400),
        (REQUEST.replace(b": 13", b": 8"), 426),
    ],
)
def test_a_request_for_something_else_has_a_fault_and_is_answered_with_it(request_: bytes, status: int):
    server = ServerHandshake()
    assert server.decode_untrusted(request_)
    assert server.fault == status
    assert server.reject(status).startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize(
    "data", [b"", b"\x16\x03\x01", REQUEST.replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\nabc")], ids=repr
)
def test_what_is_no_request_or_one_with_a_body_is_refused(data: bytes):
    with pytest.raises(DecodeError, match="websocket_no_http"):
        ServerHandshake().decode_untrusted(data)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.binary(max_size=80), st.sampled_from([b"", SWITCH, REQUEST[:-2], b"HTTP/1.1 ", b"GET / HTTP/1.1\r\n"]))
def test_any_bytes_are_read_or_refused(noise: bytes, start: bytes):
    for decode in (client().decode_untrusted, ServerHandshake().decode_untrusted):
        with contextlib.suppress(DecodeError):
            decode(start + noise)

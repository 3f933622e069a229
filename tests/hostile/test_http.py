# ruff: noqa: ANN401
"""Strangers at the HTTP ports: what is not quite HTTP, what is too much of it, and who sends or reads too slowly.

Each attack is made on a server that holds a call's process: an exception that left its connection would end all calls.
"""

from __future__ import annotations

import base64
import os
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx
import pytest
import trio
from hostile_rig import callers
from hostile_stack import LiveStack, live_stack

from service.admin import serve_admin
from udpio import open_udp

REQUEST_SECONDS = 1.0
CALLS = b"POST /v1/realtime/calls HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/sdp\r\n"
HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
H2C = b"GET /v1/info HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: "
WEBSOCKET = b"GET /v1/info HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
KEY = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + base64.b64encode(bytes(16)) + b"\r\n"

NO_HTTP = {
    "noise": os.urandom(4000),
    "h2c with settings that are none": H2C + b"AAAA\r\n\r\n",
    "h2c with settings that are no base64": H2C + b"!!!!\r\n\r\n",
    "h2c with forbidden settings": H2C + b"AAIAAAAF\r\n\r\n",
    "h2c and http/2 at once": H2C + b"\r\n\r\n" + HTTP2 + os.urandom(500),
    "http/2 by knowledge": HTTP2,
    "http/2 and noise": HTTP2 + os.urandom(5000),
    "http/2 with data on stream 0": HTTP2
    + bytes.fromhex("000000040000000000")
    + bytes.fromhex("00000400000000000061626364"),
    "websocket without a key": WEBSOCKET + b"\r\n",
    "websocket and noise behind it": WEBSOCKET + KEY + b"\r\n" + b"\xff" * 50,
    "websocket with extensions": WEBSOCKET
    + KEY
    + b"Sec-WebSocket-Extensions: permessage-deflate; x=y; =\r\n\r\n"
    + b"\x81\x80",
    "websocket in http/1.0": WEBSOCKET.replace(b"1.1", b"1.0") + KEY + b"\r\n",
    "a path of nonsense": b"GET /%ff%fe%00/../..//x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a path upwards": b"GET /%2e%2e/%2e%2e/relay/core.py HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a host of nonsense": b"GET /v1/info/ HTTP/1.1\r\nHost: [::\xff\r\n\r\n",
    "a target that is no path": b"CONNECT x:1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "ranges": b"GET /app.js HTTP/1.1\r\nHost: localhost\r\nRange: bytes=9-1,x,0-0,-1\r\n\r\n",
    "a form in a charset of nonsense": CALLS.replace(
        b"application/sdp", b"multipart/form-data; boundary=a; charset=idna"
    )
    + b"Content-Length: 63\r\n\r\n"
    + b'--a\r\nContent-Disposition: form-data; name="sdp"\r\n\r\n\xd8\x00\xff\r\n--a--\r\n',
}

SMUGGLED = {
    "both lengths": CALLS + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": CALLS + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    "a negative length": CALLS + b"Content-Length: -5\r\n\r\nabc",
    "a length in words": CALLS + b"Content-Length: +5\r\n\r\nabcde",
    "an unknown coding": CALLS + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "two codings": CALLS + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "a space before the colon": CALLS + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a folded line": CALLS + b"Transfer-Encoding:\r\n\tchunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "a chunk of negative size": CALLS + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
    "a chunk size without end": CALLS + b"Transfer-Encoding: chunked\r\n\r\n" + b"0" * 30 + b"1\r\nabc",
    "no host": b"GET /v1/info HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /v1/info HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
}


@pytest.fixture(scope="module")
def stack() -> Iterator[LiveStack]:
    with live_stack(
        ANTIPHON_TRANSCEIVER_TIMEOUTS_REQUEST=str(REQUEST_SECONDS), ANTIPHON_TRANSCEIVER_MAX_SESSIONS="2"
    ) as stack:
        yield stack


async def answer_to(address: tuple[str, int], data: bytes, seconds: float = 1.0) -> bytes:
    """What comes back until the server closes, or is done, or `seconds` have passed."""
    answer = b""
    async with await trio.open_tcp_stream(*address) as stream:
        with trio.move_on_after(seconds):
            try:
                await stream.send_all(data)
                while chunk := await stream.receive_some():
                    answer += chunk
            except trio.BrokenResourceError:
                pass
    return answer


@pytest.mark.slow
async def test_what_is_not_quite_http_ends_its_own_connection_and_no_process(stack: LiveStack) -> None:
    processes = stack.children()
    async with trio.open_nursery() as nursery:
        for data in NO_HTTP.values():
            nursery.start_soon(partial(answer_to, stack.http, data, seconds=0.3))
    assert (await get(stack, "/v1/info")).status_code == 200
    assert stack.children() == processes
    assert stack.metrics(stack.transceiver_admin)["antiphon_transceiver_http_connections_failed_total"] == 0


@pytest.mark.parametrize("data", SMUGGLED.values(), ids=SMUGGLED.keys())
async def test_a_request_whose_end_is_open_to_doubt_is_refused_and_nothing_behind_it_is_read(
    stack: LiveStack, data: bytes
) -> None:
    behind = b"GET /v1/info HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer = await answer_to(stack.http, data + behind)
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 501")), answer
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"max_calls" not in answer


@pytest.mark.parametrize("admin", ["relay_admin", "transceiver_admin"])
async def test_the_admin_ports_are_no_softer(stack: LiveStack, admin: str) -> None:
    processes = stack.children()
    host, _, port = getattr(stack, admin).rpartition(":")
    async with trio.open_nursery() as nursery:
        for data in NO_HTTP.values():
            nursery.start_soon(partial(answer_to, (host, int(port)), data, seconds=0.15))
    assert stack.metrics(getattr(stack, admin))
    assert stack.children() == processes


@pytest.mark.slow
async def test_slow_senders_are_cut_and_others_served_meanwhile(stack: LiveStack) -> None:
    """Headers, a body of known length, and chunks, a byte at a time; the time is one second here instead of ten."""
    ends: list[float] = []

    async def trickle(head: bytes, piece: bytes) -> None:
        began = trio.current_time()
        async with await trio.open_tcp_stream(*stack.http) as stream, trio.open_nursery() as nursery:

            async def read() -> None:
                try:
                    while await stream.receive_some():
                        pass
                except trio.BrokenResourceError:
                    pass
                ends.append(trio.current_time() - began)
                nursery.cancel_scope.cancel()

            nursery.start_soon(read)
            try:
                await stream.send_all(head)
                while True:
                    await trio.sleep(0.1)
                    await stream.send_all(piece)
            except trio.BrokenResourceError:
                pass

    with trio.fail_after(8):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(trickle, b"POST /v1/realtime/calls HTTP/1.1\r\n", b"X")
                nursery.start_soon(trickle, CALLS + b"Connection: close\r\nContent-Length: 9999\r\n\r\n", b"v")
                nursery.start_soon(
                    trickle, CALLS + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nv\r\n"
                )
            await trio.sleep(0.3)
            assert (await get(stack, "/v1/info")).status_code == 200
    assert max(ends) < 6.5  # headers have five seconds, whatever the body has
    assert sum(end < REQUEST_SECONDS + 0.7 for end in ends) == 10


async def test_a_body_over_64_kib_is_refused_while_it_streams(stack: LiveStack) -> None:
    chunk = b"1000\r\n" + b"v" * 4096 + b"\r\n"
    answer = await answer_to(
        stack.http, CALLS + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 17 + b"0\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({}, 415),
        ({"Content-Type": "application/sdp", "Content-Encoding": "gzip"}, 415),
        ({"Content-Type": "application/sdp", "Accept": "text/html"}, 406),
        ({"Content-Type": "application/sdp", "Accept": "application/sdp;q=0"}, 406),
        ({"Content-Type": "application/sdp"}, 400),
        ({"Content-Type": "application/json"}, 400),
        ({"Content-Type": "multipart/form-data"}, 400),
    ],
)
async def test_every_refusal_has_the_one_shape_of_error(stack: LiveStack, headers: dict[str, str], status: int) -> None:
    async with httpx.AsyncClient(base_url=stack.url) as http:
        response = await http.post("/v1/realtime/calls", content=b"not sdp", headers=headers)
    assert response.status_code == status
    error = response.json()["error"]
    assert sorted(error) == ["code", "message", "param", "type"]
    assert error["type"] == "invalid_request_error"


async def test_json_as_deep_as_it_may_be_makes_a_call_or_a_refusal_but_never_a_failure(stack: LiveStack) -> None:
    offer = callers.Caller(socket_of_its_own := open_udp("127.0.0.1", 0)).offer()
    socket_of_its_own.close()
    async with httpx.AsyncClient(base_url=stack.url, timeout=10) as http:
        for depth in (100, 900, 940, 960, 970, 980, 990, 1000, 20_000):
            nest = "[" * depth + "]" * depth
            body = '{"sdp": %s, "session": {"a": %s}}' % (httpx.Response(200, json=offer).text, nest)  # noqa: UP031
            response = await http.post("/v1/realtime/calls", content=body, headers={"Content-Type": "application/json"})
            assert response.status_code in (201, 400, 503), (depth, response.text)
            if response.status_code == 201:
                await http.delete(response.headers["location"])


async def test_at_the_limit_of_calls_the_answer_is_503_and_a_time_to_come_back(stack: LiveStack) -> None:
    offer = callers.Caller(socket_of_its_own := open_udp("127.0.0.1", 0)).offer()
    socket_of_its_own.close()
    async with httpx.AsyncClient(base_url=stack.url, timeout=10) as http:
        places = []
        while (response := await http.post("/v1/realtime/calls", content=offer, headers=SDP)).status_code == 201:
            places.append(response.headers["location"])
            assert len(places) < 5
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) >= 1
        assert response.json()["error"]["code"] == "session_limit"
        for place in places:
            assert (await http.delete(place)).status_code == 200


SDP = {"Content-Type": "application/sdp"}


async def get(stack: LiveStack, path: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=stack.url, timeout=10) as http:
        return await http.get(path)


@pytest.mark.slow
async def test_who_asks_and_never_reads_does_not_keep_the_server_from_ending(nursery: trio.Nursery) -> None:
    text = b"x" * 1000
    scope = trio.CancelScope()
    ended = trio.Event()

    async def serve(*, task_status: Any) -> None:
        with scope:
            await serve_admin(
                "127.0.0.1:0",
                metrics=lambda: (),
                ready=lambda: True,
                status=lambda: {"x": text.decode()},
                task_status=task_status,
            )
        ended.set()

    urls = await nursery.start(serve)
    host, _, port = urls[0].removeprefix("http://").rpartition(":")
    streams = []
    for _ in range(3):
        stream = await trio.open_tcp_stream(host, int(port))
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        streams.append(stream)
        with trio.move_on_after(0.3):
            while True:
                await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
    scope.cancel()
    with trio.fail_after(1):
        await ended.wait()
    for stream in streams:
        await trio.aclose_forcefully(stream)

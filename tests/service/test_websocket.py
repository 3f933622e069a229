"""The WebSocket over trio: against trio-websocket on the other side, and the two ends that we have ourselves."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

import pytest
import trio
from trio.abc import Clock
from trio.testing import MemorySendStream, memory_stream_one_way_pair, memory_stream_pair
from trio_websocket import ConnectionClosed, wrap_client_stream, wrap_server_stream

from protocol.errors import DecodeError
from service.websocket import WebSocket, WebSocketClosed, accept, connect

LIMIT = 100_000


async def pair(near: trio.abc.Stream, far: trio.abc.Stream) -> tuple[WebSocket, WebSocket]:
    made: dict[str, WebSocket | None] = {}

    async def serve() -> None:
        made["server"] = await accept(far, max_message_bytes=LIMIT)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        client = await connect(near, "host", "/", max_message_bytes=LIMIT)
    server = made["server"]
    assert server is not None
    return client, server


async def receive(socket: WebSocket, count: int) -> list[str | bytes]:
    heard: list[str | bytes] = []
    while len(heard) < count:
        heard += await socket.receive()
    return heard


MESSAGES: list[str | bytes] = ["text ✓", b"", b"binary", "", b"x" * LIMIT, "end"]


async def test_messages_go_both_ways_in_order_and_a_goodbye_reaches_both(nursery: trio.Nursery):
    client, server = await pair(*memory_stream_pair())
    nursery.start_soon(client.send, MESSAGES)
    assert await receive(server, len(MESSAGES)) == MESSAGES
    nursery.start_soon(server.send, MESSAGES)
    assert await receive(client, len(MESSAGES)) == MESSAGES
    nursery.start_soon(partial(server.close, 1001, "going away"))
    with pytest.raises(WebSocketClosed) as caught:
        await client.receive()
    assert (caught.value.code, caught.value.reason) == (1001, "going away")
    with trio.fail_after(1):
        while server.closed is None:
            await trio.sleep(0.001)
    assert server.closed.code == 1000
    with pytest.raises(WebSocketClosed):
        await client.send(["too late"])


async def test_the_client_talks_to_trio_websocket(nursery: trio.Nursery):
    near, far = memory_stream_pair()

    async def echo() -> None:
        async with trio.open_nursery() as inner:
            connection = await (await wrap_server_stream(inner, far)).accept()
            for _ in MESSAGES:
                await connection.send_message(await connection.get_message())
            await connection.ping()
            await connection.aclose(4000, "enough")

    nursery.start_soon(echo)
    client = await connect(near, "host", "/", max_message_bytes=LIMIT)
    nursery.start_soon(_keep_alive, client)
    await client.send(MESSAGES)
    assert await receive(client, len(MESSAGES)) == MESSAGES
    with pytest.raises(WebSocketClosed, match="4000 enough"):
        await client.receive()


async def test_the_server_talks_to_trio_websocket(nursery: trio.Nursery):
    near, far = memory_stream_pair()

    async def echo() -> None:
        server = await accept(far, max_message_bytes=LIMIT)
        assert server is not None
        nursery.start_soon(_keep_alive, server)
        await server.send(await receive(server, len(MESSAGES)))
        with pytest.raises(WebSocketClosed):
            await server.receive()

    nursery.start_soon(echo)
    client = await wrap_client_stream(nursery, near, "host", "/")
    for message in MESSAGES:
        await client.send_message(message)
    assert [await client.get_message() for _ in MESSAGES] == MESSAGES
    with trio.fail_after(1):
        await client.ping()
        await client.aclose()
    with pytest.raises(ConnectionClosed):
        await client.get_message()


async def _keep_alive(socket: WebSocket) -> None:
    with suppress(WebSocketClosed):
        await socket.keep_alive(5, 5)


async def test_a_silent_side_is_found_out_within_the_time_that_it_has(autojump_clock: Clock):
    client, server = await pair(*memory_stream_pair())
    began = trio.current_time()
    with pytest.raises(trio.TooSlowError):
        await client.keep_alive(5, 3)
    assert trio.current_time() - began == pytest.approx(8)
    assert server.closed is None


async def test_a_side_that_answers_is_kept(autojump_clock: Clock):
    client, server = await pair(*memory_stream_pair())
    with trio.move_on_after(60) as limit:
        async with trio.open_nursery() as inner:
            for socket in (client, server):
                inner.start_soon(socket.keep_alive, 5, 3)
                inner.start_soon(socket.receive)
    assert limit.cancelled_caught


def _slow_down(stream: MemorySendStream, seconds: float) -> None:
    """What is sent takes a while to arrive."""
    deliver = stream.send_all_hook
    assert deliver is not None

    async def send() -> None:
        await trio.sleep(seconds)
        await deliver()

    stream.send_all_hook = send


async def test_two_sides_that_send_much_and_ping_do_not_stop_each_other(autojump_clock: Clock):
    (a_out, b_in), (b_out, a_in) = memory_stream_one_way_pair(), memory_stream_one_way_pair()
    for sender in (a_out, b_out):
        _slow_down(sender, 0.01)
    client, server = await pair(trio.StapledStream(a_out, a_in), trio.StapledStream(b_out, b_in))

    async def send_much(socket: WebSocket) -> None:
        for _ in range(200):
            await socket.send([b"x" * 1000] * 10)

    with trio.fail_after(60):
        async with trio.open_nursery() as inner:
            for socket in (client, server):
                inner.start_soon(_keep_alive, socket)
            async with trio.open_nursery() as busy:
                for socket in (client, server):
                    busy.start_soon(send_much, socket)
                    busy.start_soon(receive, socket, 2000)
            inner.cancel_scope.cancel()


async def test_when_the_stream_breaks_both_reading_and_writing_say_so(nursery: trio.Nursery):
    near, far = memory_stream_pair()
    client, _ = await pair(near, far)
    await far.aclose()
    with pytest.raises(WebSocketClosed, match="1006"):
        await client.receive()
    with pytest.raises(WebSocketClosed):
        await client.send(["x"])


@pytest.mark.parametrize(
    ("data", "code"), [(b"\x81\x01a", 1002), (b"\x81\x82\0\0\0\0\xc3\x28", 1007), (b"\x82\xff\x7f" + b"\xff" * 7, 1009)]
)
async def test_bad_frames_end_the_connection_with_the_code_that_says_why(nursery: trio.Nursery, data: bytes, code: int):
    near, far = memory_stream_pair()
    _, server = await pair(near, far)
    await near.send_all(data)
    with pytest.raises(DecodeError):
        await server.receive()
    goodbye = bytes(await near.receive_some())
    assert goodbye[0] == 0x88
    assert int.from_bytes(goodbye[2:4], "big") == code
    with pytest.raises(WebSocketClosed):
        await server.receive()


async def test_a_request_may_be_refused_by_its_headers(nursery: trio.Nursery):
    near, far = memory_stream_pair()
    refused: list[object] = []

    async def serve() -> None:
        refused.append(
            await accept(far, max_message_bytes=LIMIT, refuse=lambda headers: 403 if b"host" in headers else None)
        )

    nursery.start_soon(serve)
    with pytest.raises(DecodeError, match="websocket_refused: 403"):
        await connect(near, "host", "/", max_message_bytes=LIMIT)
    assert refused == [None]


async def test_a_send_that_was_cancelled_half_way_is_the_last(autojump_clock: Clock):
    near, far = memory_stream_pair()
    client, server = await pair(near, far)
    _slow_down(near.send_stream, 10)
    with trio.move_on_after(1):
        await client.send([b"x"])
    with pytest.raises(WebSocketClosed):
        await client.send([b"y"])
    with trio.move_on_after(20) as limit:
        await server.receive()
    assert limit.cancelled_caught

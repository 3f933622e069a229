"""WebSockets between our own processes: a long message holds nobody up, and comes whole."""

from __future__ import annotations

import pytest
import trio
from trio.testing import memory_stream_pair

from service.websocket import MAX_WHOLE_LENGTH, Message, WebSocket, WebSocketClosed, accept, connect


async def pair(nursery: trio.Nursery, max_message_bytes: int = 1 << 24) -> tuple[WebSocket, WebSocket]:
    near, far = memory_stream_pair()
    accepted: list[WebSocket | None] = []

    async def serve() -> None:
        accepted.append(await accept(nursery, far, max_message_bytes=max_message_bytes))

    nursery.start_soon(serve)
    client = await connect(nursery, near, "host", "/", max_message_bytes=max_message_bytes)
    await trio.testing.wait_all_tasks_blocked()
    assert accepted[0] is not None
    return client, accepted[0]


@pytest.mark.parametrize("letter", ["x", "ü", "𝄞", b"x"])
async def test_a_long_message_comes_whole_and_others_wait_for_it(nursery: trio.Nursery, letter: Message):
    client, server = await pair(nursery)
    long = letter * (MAX_WHOLE_LENGTH + 77)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as inside:
        inside.start_soon(others)
        async with trio.open_nursery() as senders:
            for messages in ([long, "after"], ["beside"], [long]):
                senders.start_soon(client.send, messages)
            got = [await server.receive() for _ in range(4)]
        inside.cancel_scope.cancel()
    assert sorted(map(len, got)) == sorted([len(long), len(long), 5, 6])
    assert [message for message in got if len(message) > 10] == [long, long]
    assert turns >= 2 * len(long) // (64 * 1024)
    await server.send([long])
    assert await client.receive() == long
    nursery.cancel_scope.cancel()


async def test_a_long_message_cut_half_way_is_the_last(nursery: trio.Nursery):
    client, _ = await pair(nursery)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as senders:
            senders.start_soon(client.send, ["x" * (MAX_WHOLE_LENGTH + 1)])
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            scope.cancel()
    with pytest.raises(WebSocketClosed):
        await client.send(["more"])
    nursery.cancel_scope.cancel()

"""The HTTP server inside our own nursery: connections take turns with each other and with everything else."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from service.http import serve_http


async def test_connections_that_send_at_once_are_served_one_after_the_other(nursery: trio.Nursery) -> None:
    """All of them in one pass of the scheduler had stopped every call for as long as they took together."""
    passes = 0
    served: Counter[int] = Counter()

    async def count_passes() -> None:
        nonlocal passes
        while True:
            await trio.lowlevel.checkpoint()
            passes += 1

    async def app(scope: dict[str, Any], _: object, send: Callable[[object], Awaitable[None]]) -> None:
        if scope["type"] != "http":
            return
        served[passes] += 1
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    (url,) = await nursery.start(serve_http, app, ("127.0.0.1:0",))
    address = ("127.0.0.1", int(url.rpartition(":")[2]))
    clients = [socket.create_connection(address) for _ in range(40)]
    await trio.sleep(0.1)  # all are let in, and wait
    nursery.start_soon(count_passes)
    for client in clients:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    with trio.fail_after(5):
        while served.total() < 40:
            await trio.sleep(0.01)
    assert max(served.values()) <= 2
    for client in clients:
        client.close()

"""A web server with the page that runs the unmodified Realtime SDK: from another origin than the stack's, as adopters' are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import h11
import httpx
import pytest
import realtime_sdk
import trio

HERE = Path(__file__).parent
TYPES = {".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript"}
LINE_LIMIT = 65_536


def need_sdk() -> None:
    if not realtime_sdk.is_fetched():
        pytest.skip("the Realtime SDK is not here: ./just fetch-sdk")


@asynccontextmanager
async def serve_page(page: str = "realtime_page.html") -> AsyncIterator[str]:
    """The page's address."""
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, partial(_serve, page), 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}/"
        nursery.cancel_scope.cancel()


async def _serve(page: str, stream: trio.SocketStream) -> None:
    """One request."""
    connection = h11.Connection(h11.SERVER)
    async with stream:
        while (event := connection.next_event()) is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some())
        if not isinstance(event, h11.Request):
            return
        file = _find(page, event.target.decode())
        content = file.read_bytes() if file is not None else b""
        headers = [("Content-Length", str(len(content))), ("Connection", "close")]
        if file is not None:
            headers.append(("Content-Type", TYPES[file.suffix]))
        head = connection.send(h11.Response(status_code=200 if file else 404, headers=headers))
        body = connection.send(h11.Data(data=content))
        with suppress(trio.BrokenResourceError):  # the browser has gone on to another page
            await stream.send_all(head + body)


def _find(page: str, path: str) -> Path | None:
    name = path.rpartition("/")[2] or page
    file = (realtime_sdk.FOLDER if path.startswith("/sdk/") else HERE) / name
    return file if file.suffix in TYPES and file.is_file() else None


async def ephemeral_key(url: str) -> str:
    """An `ek_…` for the browser, as an adopter's server gets it."""
    async with httpx.AsyncClient(base_url=url) as client:
        response = await client.post("/v1/realtime/client_secrets", json={"session": {"type": "realtime"}})
    response.raise_for_status()
    return response.json()["value"]

"""A client's WebSocket joined to one of ours: to an agent, or to another worker. Messages pass as they are, one after another
each way; whoever takes them slowly makes the other wait, and clients speak at their pace (pace.py). When one side closes, the
other is closed with the same words."""

from __future__ import annotations

from dataclasses import dataclass

import trio
from starlette.types import Message
from starlette.websockets import WebSocket

from service.websocket import WebSocket as FarSocket
from service.websocket import WebSocketClosed
from transceiver.signalling.pace import Pace

__all__ = ["Closing", "pipe"]

# Specification constants, RFC 6455 §7.4.1
NORMAL, NO_STATUS, ABNORMAL, INTERNAL_ERROR, TLS_FAILED = 1000, 1005, 1006, 1011, 1015
UNSPEAKABLE = frozenset({NO_STATUS, ABNORMAL, TLS_FAILED})  # they stand for a close frame that there was not

# Implementation constants, in seconds
PING_EVERY = 10.0
PATIENCE = 30.0  # for a pong: a far side that waits for its own client answers late
FAREWELL = 1.0


@dataclass(frozen=True, slots=True)
class Closing:
    """How it ended, and who ended it."""

    by_client: bool
    code: int
    reason: str


async def pipe(websocket: WebSocket, far: FarSocket) -> Closing:
    """Until either side closes, or is gone; both have been told then."""
    pace = Pace()
    closings: list[Closing] = []  # the first one counts

    async def listen() -> None:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                closings.append(Closing(True, message["code"], message.get("reason") or ""))
                break
            await pace.turn()
            try:
                await far.send([_content(message)])
            except WebSocketClosed:
                return  # `tell` has it
        nursery.cancel_scope.cancel()

    async def tell() -> None:
        try:
            while True:
                await send(websocket, await far.receive())
        except WebSocketClosed as closed:
            closings.append(Closing(False, closed.code, closed.reason))
        nursery.cancel_scope.cancel()

    async def ask() -> None:
        try:
            await far.keep_alive(PING_EVERY, PATIENCE)
        except WebSocketClosed:
            return
        except trio.TooSlowError:
            closings.append(Closing(False, ABNORMAL, "no answer to a ping"))
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        nursery.start_soon(tell)
        nursery.start_soon(ask)
    closing = closings[0]
    if closing.by_client:
        with trio.move_on_after(FAREWELL):
            await far.close(NORMAL if closing.code in UNSPEAKABLE else closing.code, closing.reason)
    else:
        await websocket.close(INTERNAL_ERROR if closing.code in UNSPEAKABLE else closing.code, closing.reason)
    return closing


async def send(websocket: WebSocket, message: str | bytes) -> None:
    if isinstance(message, str):
        await websocket.send_text(message)
    else:
        await websocket.send_bytes(message)


def _content(message: Message) -> str | bytes:
    text, data = message.get("text"), message.get("bytes")
    if isinstance(text, str):
        return text
    assert isinstance(data, bytes)
    return data

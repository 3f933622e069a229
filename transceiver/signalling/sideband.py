"""A controller's WebSocket: what it says goes to the agent of the call, what the agent says to it, or to all, comes here."""

from __future__ import annotations

import os
from typing import Protocol

import trio
from starlette.websockets import WebSocket

from protocol.agentlink import MAX_DATA_BYTES
from transceiver.refusals import too_large
from transceiver.signalling.pace import Pace
from transceiver.signalling.pipe import send

__all__ = ["Controller", "control"]

# Specification constants
NORMAL = 1000  # RFC 6455 §7.4.1

# Implementation constants
ROOM_SECONDS = 0.02  # between two looks whether the agent takes more


class Controller(Protocol):
    """One who has attached to a call."""

    on_news: NewsCallback

    @property
    def closed(self) -> str | None:
        """Why nothing comes any more."""

    @property
    def is_cut(self) -> bool:
        """It was too slow: nothing that waits is worth sending."""

    @property
    def may_speak(self) -> bool:
        """Else the agent takes messages too slowly: say the next one later."""

    def say(self, data: str | bytes) -> None:
        """To the agent; at most MAX_DATA_BYTES."""

    def take(self) -> str | bytes | None:
        """The next thing that the agent said; None: nothing waits."""

    def leave(self) -> None: ...


class NewsCallback(Protocol):
    def __call__(self) -> None:
        """Something waits to be taken, or `closed` is set."""


async def control(websocket: WebSocket, controller: Controller) -> None:
    """Until it goes, is cut, or its call ends; it is told why, unless it was cut."""
    news, pace = trio.Event(), Pace()

    def on_news() -> None:
        news.set()
        if controller.is_cut:  # the socket takes nothing: there is no way to say goodbye
            nursery.cancel_scope.cancel()

    async def listen() -> None:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                break
            text: str | None = message.get("text")
            data = message["bytes"] if text is None else text
            if len(data if text is None else text.encode()) > MAX_DATA_BYTES:
                await websocket.send_text(too_large(os.urandom))
                continue
            await pace.turn()
            while not controller.may_speak:  # noqa: ASYNC110 - so rare that nothing else should pay for being woken
                await trio.sleep(ROOM_SECONDS)
            controller.say(data)
        nursery.cancel_scope.cancel()

    async def tell() -> None:
        nonlocal news
        while True:
            while (data := controller.take()) is not None:
                await send(websocket, data)
            if controller.closed is not None:
                break
            news = trio.Event()
            await news.wait()
        await websocket.close(NORMAL, controller.closed)
        nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            controller.on_news = on_news
            nursery.start_soon(listen)
            nursery.start_soon(tell)
    finally:
        controller.leave()

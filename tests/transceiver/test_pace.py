"""How fast WebSockets of signalling speak to agents."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from starlette.types import Message
from starlette.websockets import WebSocket

from service import websocket as far_websocket
from service.websocket import WebSocketClosed
from transceiver.signalling.pace import BURST, RATE, Pace
from transceiver.signalling.pipe import pipe
from transceiver.signalling.sideband import NewsCallback, control

MANY = 1000
SECONDS = (MANY - BURST) / RATE


def flooding() -> WebSocket:
    """It says all that it has at once, and goes."""
    events: list[Message] = [{"type": "websocket.receive", "text": "{}"}] * MANY
    words = iter([*events, {"type": "websocket.disconnect", "code": 1000}])

    async def receive() -> Message:
        await trio.lowlevel.checkpoint()
        return next(words)

    async def send(_: Message) -> None:
        await trio.lowlevel.checkpoint()

    scope = {"type": "websocket", "path": "/", "headers": [], "query_string": b""}
    websocket = WebSocket(scope, receive, send)
    websocket.client_state = websocket.application_state = websocket.application_state.CONNECTED
    return websocket


class Counting:
    """A controller as its WebSocket sees it; its agent has room, and says nothing."""

    on_news: NewsCallback
    closed: str | None = None
    is_cut = False
    may_speak = True
    said = 0

    def say(self, data: str | bytes) -> None:
        self.said += 1

    def take(self) -> str | bytes | None:
        return None

    def leave(self) -> None: ...


async def test_a_few_messages_pass_at_once_and_many_at_a_rate(autojump_clock: trio.testing.MockClock):
    pace = Pace()
    for _ in range(int(BURST)):
        await pace.turn()
    assert trio.current_time() == 0
    for _ in range(400):
        await pace.turn()
    assert trio.current_time() == pytest.approx(400 / RATE)
    await trio.sleep(100)
    before = trio.current_time()
    for _ in range(int(BURST)):
        await pace.turn()
    assert trio.current_time() == before


async def test_a_controller_that_floods_is_read_at_its_pace_and_loses_nothing(autojump_clock: trio.testing.MockClock):
    controller = Counting()
    await control(flooding(), controller)
    assert controller.said == MANY
    assert trio.current_time() == pytest.approx(SECONDS, abs=0.1)


async def test_a_session_that_floods_is_read_at_its_pace_and_loses_nothing(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
):
    near, far = trio.testing.memory_stream_pair()
    heard = 0

    async def agent() -> None:
        nonlocal heard
        websocket = await far_websocket.accept(nursery, far, max_message_bytes=1000)
        assert websocket is not None
        try:
            while True:
                await websocket.receive()
                heard += 1
        except WebSocketClosed:
            pass

    nursery.start_soon(agent)
    link = await far_websocket.connect(nursery, near, "agent", "/", max_message_bytes=1000)
    began = trio.current_time()
    closing = await pipe(flooding(), link)
    assert closing.by_client
    assert heard == MANY
    assert trio.current_time() - began == pytest.approx(SECONDS, abs=0.1)

"""The transceiver's end of the agent link, against agents that misbehave; over loopback."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket

from protocol.agentlink import (
    LINK_VERSION,
    AgentDrain,
    AgentHello,
    CallAccept,
    CallClient,
    CallEnd,
    CallRefuse,
    CallStart,
    decode_transceiver_message_untrusted,
    encode_message,
)
from protocol.codecs import OPUS, Codec
from transceiver.backends.agent_link import MAX_LINK_BYTES
from transceiver.backends.attachment import MAX_CALL_BYTES, MAX_CALL_CONTROL_BYTES
from transceiver.backends.base import Accepted, Attachment, BackendEvent, Call, Ended, Lost, Refused
from transceiver.backends.pool import AgentPool
from transceiver.media import Uplink

Handler = Callable[[WebSocketConnection], Awaitable[None]]
HELLO = encode_message(AgentHello(LINK_VERSION, "test", ("opus", "PCMU")))


class PlainCall:
    """What the link knows of a call."""

    def __init__(self, call_id: str = "rtc_1") -> None:
        self.call_id = call_id
        self.session: bytes | None = b'{"model": "m"}'
        self.client: CallClient | None = CallClient("shop", "user-7")
        self.expires_at = 1_800_000_000
        self.codec: Codec | None = OPUS
        self.uplink: Uplink | None = None


class PlainInbox:
    def __init__(self) -> None:
        self.events: list[tuple[Call, Attachment | None, BackendEvent]] = []

    def post(self, call: Call, attachment: Attachment | None, event: BackendEvent) -> None:
        self.events.append((call, attachment, event))

    def kinds(self) -> list[type]:
        return [type(event) for _, _, event in self.events]


Start = Callable[[Handler], Awaitable[tuple[AgentPool, PlainInbox]]]


@pytest.fixture
def start(nursery: trio.Nursery) -> Start:
    async def start(*handlers: Handler) -> tuple[AgentPool, PlainInbox]:
        urls = []
        for handler in handlers:

            async def accept(request: WebSocketRequest, handler: Handler = handler) -> None:
                try:
                    await handler(await request.accept())
                except ConnectionClosed:
                    return

            server = await nursery.start(partial(serve_websocket, accept, "127.0.0.1", 0, None))
            urls.append(f"ws://127.0.0.1:{server.port}/link?x=1")
        inbox = PlainInbox()
        pool = AgentPool(tuple(urls), "transceiver-1", inbox)
        nursery.start_soon(pool.run)
        return pool, inbox

    return start


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(5):
        while not condition():
            await trio.sleep(0.005)


async def greet(socket: WebSocketConnection) -> None:
    assert (await socket.get_message()).startswith("{")
    await socket.send_message(HELLO)


async def taking(socket: WebSocketConnection) -> None:
    """Takes every call."""
    await greet(socket)
    while True:
        message = decode_transceiver_message_untrusted(await socket.get_message())
        if isinstance(message, CallStart):
            await socket.send_message(encode_message(CallAccept(message.handle)))


async def test_calls_are_spread_over_the_agents(start: Start) -> None:
    pool, inbox = await start(taking, taking)
    await until(lambda: all(link.connected for link in pool.links))
    attachments = [pool.open(PlainCall(f"rtc_{number}")) for number in range(6)]
    await until(lambda: inbox.kinds() == [Accepted] * 6)
    assert [link.calls for link in pool.links] == [3, 3]
    for attachment in attachments:
        attachment.end("hangup")
    assert [link.calls for link in pool.links] == [0, 0]
    assert [codec.name for codec in pool.codecs] == ["opus", "PCMU"]


async def test_a_session_too_deep_to_be_told_is_left_out_and_the_call_is_offered_all_the_same(start: Start) -> None:
    pool, inbox = await start(taking)
    await until(lambda: pool.links[0].connected)
    call = PlainCall()
    call.session = b'{"nested":' + 30_000 * b"[" + 30_000 * b"]" + b"}"
    attachment = pool.open(call)
    await until(lambda: inbox.kinds() == [Accepted])
    assert attachment is not None
    assert pool.links[0].drops["session_oversize"] == 1
    attachment.end("hangup")
    assert pool.links[0].calls == 0


async def test_an_agent_that_is_leaving_gets_no_new_calls(start: Start) -> None:
    async def leaving(socket: WebSocketConnection) -> None:
        await greet(socket)
        await socket.send_message(encode_message(AgentDrain()))
        await trio.sleep_forever()

    pool, _ = await start(leaving)
    await until(lambda: pool.links[0].draining)
    assert pool.open(PlainCall()) is None


async def test_refusals_and_hang_ups_reach_the_call_once_and_free_the_handle(start: Start) -> None:
    ends: list[CallEnd] = []

    async def fickle(socket: WebSocketConnection) -> None:
        await greet(socket)
        first = decode_transceiver_message_untrusted(await socket.get_message())
        assert isinstance(first, CallStart)
        assert (first.codec, first.clock_rate, first.channels, first.session) == ("opus", 48_000, 2, {"model": "m"})
        assert (first.client, first.expires_at) == (CallClient("shop", "user-7"), 1_800_000_000)
        await socket.send_message(encode_message(CallRefuse(first.handle, "busy")))
        second = decode_transceiver_message_untrusted(await socket.get_message())
        assert isinstance(second, CallStart)
        await socket.send_message(encode_message(CallAccept(second.handle)))
        await socket.send_message(encode_message(CallEnd(second.handle, "bored")))
        await socket.send_message(encode_message(CallEnd(second.handle, "again")))
        while True:
            message = decode_transceiver_message_untrusted(await socket.get_message())
            if isinstance(message, CallEnd):
                ends.append(message)

    pool, inbox = await start(fickle)
    await until(lambda: pool.links[0].connected)
    pool.open(PlainCall())
    await until(lambda: inbox.events)
    assert inbox.events[0][2] == Refused("busy")
    pool.open(PlainCall())
    await until(lambda: len(inbox.events) == 3)
    assert [event for _, _, event in inbox.events[1:]] == [Accepted(), Ended("bored")]
    await until(lambda: [end.reason for end in ends] == ["agent_ended"])
    assert pool.links[0].calls == 0
    assert pool.links[0].drops == {"unknown_handle": 1}


@pytest.mark.parametrize(
    "hello", ["{}", "nonsense", encode_message(AgentHello(LINK_VERSION + 1, "future")), encode_message(AgentDrain())]
)
async def test_an_agent_that_does_not_greet_properly_gets_no_calls(start: Start, hello: str) -> None:
    attempts = 0

    async def rude(socket: WebSocketConnection) -> None:
        nonlocal attempts
        attempts += 1
        await socket.send_message(hello)
        await trio.sleep_forever()

    pool, _ = await start(rude)
    await until(lambda: attempts >= 2)
    assert not pool.links[0].connected
    assert pool.open(PlainCall()) is None


async def test_when_the_link_breaks_every_call_is_told_and_the_link_comes_back(start: Start) -> None:
    sockets: list[WebSocketConnection] = []

    async def breaking(socket: WebSocketConnection) -> None:
        sockets.append(socket)
        await taking(socket)

    pool, inbox = await start(breaking)
    await until(lambda: pool.links[0].connected)
    attachments = [pool.open(PlainCall()) for _ in range(3)]
    await until(lambda: len(inbox.events) == 3)
    await sockets[0].aclose()
    await until(lambda: inbox.kinds() == [Accepted] * 3 + [Lost] * 3)
    assert [attachment for _, attachment, _ in inbox.events[3:]] == attachments
    attachments[0].message(0, "to nobody")  # harmless
    await until(lambda: len(sockets) == 2 and pool.links[0].connected)
    assert pool.links[0].connects == 2


async def test_a_transceiver_that_leaves_says_so_and_does_not_come_back(start: Start) -> None:
    endings: list[object] = []

    async def listening(socket: WebSocketConnection) -> None:
        try:
            await taking(socket)
        except ConnectionClosed as closed:
            endings.append(closed.reason)

    pool, _ = await start(listening)
    await until(lambda: pool.links[0].connected)
    with trio.fail_after(2):
        await pool.close()
    await until(lambda: endings)
    [reason] = endings
    assert (getattr(reason, "code", 0), getattr(reason, "reason", "")) == (1001, "the transceiver is going away")
    await trio.sleep(0.2)  # longer than it waits before it makes a broken link again
    assert not pool.links[0].connected
    assert pool.links[0].connects == 1
    await pool.close()  # once more is harmless


async def test_one_call_cannot_fill_the_link_of_all(start: Start) -> None:
    async def deaf(socket: WebSocketConnection) -> None:
        await greet(socket)
        await trio.sleep_forever()

    pool, inbox = await start(deaf)
    await until(lambda: pool.links[0].connected)
    loud, quiet = pool.open(PlainCall("loud")), pool.open(PlainCall("quiet"))
    for _ in range(40):
        loud.message(0, bytes(100_000))
    waited = quiet.waiting_bytes
    quiet.message(0, "still heard")
    assert loud.waiting_bytes <= MAX_CALL_BYTES
    assert pool.links[0].drops["call_share"] == 30
    assert 0 < quiet.waiting_bytes - waited < 200
    assert inbox.events == []


async def test_nor_can_a_call_whose_channels_come_and_go(start: Start) -> None:
    """Each kilobyte of control characters in a label is six of JSON: 3 MB from one caller had cost all calls the link."""

    async def deaf(socket: WebSocketConnection) -> None:
        await greet(socket)
        await trio.sleep_forever()

    pool, inbox = await start(deaf)
    await until(lambda: pool.links[0].connected)
    loud, quiet = pool.open(PlainCall("loud")), pool.open(PlainCall("quiet"))
    for number in range(4000):
        loud.channel_opened(number % 1024, "\1" * 1024, "")
        loud.channel_closed(number % 1024)
    loud.message(0, "too much")
    quiet.message(0, "still heard")
    await trio.sleep(0.05)
    assert inbox.events == []
    assert MAX_CALL_BYTES < loud.waiting_bytes <= MAX_CALL_CONTROL_BYTES
    assert pool.links[0].drops["call_share"] > 3000
    assert 0 < quiet.waiting_bytes < 200
    loud.end("hangup")
    assert pool.links[0].calls == 1


async def test_nor_can_many_calls_together_while_their_agent_does_not_read(start: Start) -> None:
    async def deaf(socket: WebSocketConnection) -> None:
        await greet(socket)
        await trio.sleep_forever()

    pool, inbox = await start(deaf)
    [link] = pool.links
    await until(lambda: link.connected)
    loud = [pool.open(PlainCall()) for _ in range(40)]
    for attachment in loud:
        for number in range(400):
            attachment.message(0, bytes(10_000))
            attachment.channel_opened(number, "\1" * 1024, "")
    assert link._queued_bytes < MAX_LINK_BYTES
    assert not link.is_usable
    assert pool.open(PlainCall()) is None
    await trio.sleep(0.05)
    assert link.connected
    assert inbox.events == []


async def test_an_agent_that_does_not_read_at_all_loses_the_link(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transceiver.backends.agent_link.MAX_LINK_BYTES", 8_000_000)

    async def deaf(socket: WebSocketConnection) -> None:
        await greet(socket)
        await trio.sleep_forever()

    pool, inbox = await start(deaf)
    await until(lambda: pool.links[0].connected)
    for attachment in [pool.open(PlainCall()) for _ in range(100)]:
        for number in range(10):
            attachment.message(0, bytes(100_000))
            attachment.channel_opened(number, "\1" * 1024, "")
    await until(lambda: inbox.kinds() == [Lost] * 100)
    assert pool.links[0].drops["link_share"] >= 1


async def test_an_agent_that_does_not_answer_pings_loses_the_link(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transceiver.backends.agent_link.PING_SECONDS", 0.05)

    async def frozen(socket: WebSocketConnection) -> None:
        await greet(socket)
        socket._reader_running = False  # the connection stays, and nobody reads it
        await trio.sleep_forever()

    pool, inbox = await start(frozen)
    await until(lambda: pool.links[0].connected)
    pool.open(PlainCall())
    await until(lambda: inbox.kinds() == [Lost])

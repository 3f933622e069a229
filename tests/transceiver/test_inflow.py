# ruff: noqa: ANN401  (what fixtures give cannot be imported here, so it stays untyped)
"""What callers say on data channels, at the pace of their share; and beside whom."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
import trio.testing
from realtime_client import OFFICIAL

from agent.call import Call
from agent.link import Link
from agent.statistics import Statistics
from protocol.agentlink import MAX_DATA_BYTES, MAX_MESSAGE_BYTES
from service import websocket
from transceiver.backends.agent_link import AgentLink
from transceiver.backends.base import Lost
from transceiver.backends.pool import AgentPool
from transceiver.session.inflow import BURST, RATE, Inflow

MESSAGE_SECONDS = 0.0003  # that a message of the link takes, whatever its size


async def again(call: Call) -> None:
    async for frame in call.frames():
        await call.send_frame(frame.payload)


def flood(caller: Any, messages: int) -> None:
    for _ in range(messages):
        caller.peer.send_message(caller.channel, b"12345678", trio.current_time())
    caller.drain()


@pytest.mark.slow
@pytest.mark.parametrize(("flooders", "messages"), [(1, 100), (5, 20)])
async def test_callers_who_flood_their_channels_hold_nobody_elses_audio_up(
    autojump_clock: Any,
    nursery: trio.Nursery,
    make_world: Any,
    wait_until: Any,
    monkeypatch: pytest.MonkeyPatch,
    flooders: int,
    messages: int,
) -> None:
    """Audio had left only when no data waited: one caller with 5000 messages a second silenced all calls of a link."""
    pools: list[AgentPool] = []

    async def dial(_: AgentLink) -> trio.StapledStream[Any, Any]:
        near, far = trio.testing.memory_stream_pair()
        pump = near.send_stream.send_all_hook
        assert pump is not None

        async def slowly() -> None:
            await trio.sleep(MESSAGE_SECONDS)
            await pump()

        near.send_stream.send_all_hook = slowly
        nursery.start_soon(serve, far)
        return near

    async def serve(stream: trio.abc.Stream) -> None:
        async with trio.open_nursery() as inside:
            socket = await websocket.accept(inside, stream, max_message_bytes=MAX_MESSAGE_BYTES)
            assert socket is not None
            await Link(socket, again, "again", Statistics(), 100).run()

    def agents(engine: Any) -> AgentPool:
        pools.append(AgentPool(("ws://memory/",), "transceiver", engine))
        engine.on_turn_end = pools[0].flush
        nursery.start_soon(pools[0].run)
        return pools[0]

    monkeypatch.setattr(AgentLink, "dial", dial)
    world = make_world(agents=agents)
    await wait_until(lambda: pools[0].name)
    honest, _ = await world.live_call()
    crowd = [(await world.live_call())[0] for _ in range(flooders)]
    for number in range(70):
        honest.speak()
        if number >= 10:
            for caller in crowd:
                flood(caller, messages)
        await trio.sleep(0.02)
    assert len(honest.audio) > 60
    gaps = [after - before for before, after in zip(honest.audio_times, honest.audio_times[1:])]
    assert max(gaps) < 0.1
    drops = world.registry.all_drops()
    assert drops["data_waited"] > 0
    assert pools[0].links[0].drops == {}


async def test_what_is_beyond_the_share_waits_and_comes_whole_and_in_order(
    autojump_clock: Any, world: Any, wait_until: Any
) -> None:
    world.backend.echo = False
    caller, call_id = await world.live_call()
    agent, channel, sent = world.backend.last, caller.channel, []
    session = world.registry.sessions[call_id]
    while len(sent) < 3000:
        while caller.peer._sctp.buffered_amount(channel) < 1000 and len(sent) < 3000:
            sent.append(f"word {len(sent)}")
            caller.say(sent[-1])
        await trio.sleep(0.001)
        assert session.conversation.channels._inflow.room < 1.25 * 1024 * 1024
    told = len(agent.messages)
    assert told < 3000
    assert session.peer._sctp._receiver.window < 20_000
    before = trio.current_time()
    caller.peer.close_channel(channel, before)
    caller.drain()
    await trio.sleep(1)
    assert len(agent.messages) - told == pytest.approx(RATE, abs=10)
    assert agent.channels == {channel: "oai-events"}
    await wait_until(lambda: not agent.channels, 30)
    assert agent.messages == sent
    assert trio.current_time() - before == pytest.approx((3000 - told) / RATE, rel=0.1)
    assert session.all_drops()["data_waited"] > 1000


async def test_what_waits_for_an_agent_that_is_lost_is_told_to_the_next(
    autojump_clock: Any, world: Any, wait_until: Any
) -> None:
    world.backend.echo = False
    caller, _ = await world.live_call()
    first = world.backend.last
    first.has_room = False  # its link is behind
    for number in range(3):
        caller.say(str(number))
    other = caller.peer.open_channel("other", trio.current_time())
    caller.drain()
    await trio.sleep(0.5)
    assert (first.messages, first.channels) == ([], {caller.channel: "oai-events"})
    first.post(Lost())
    await wait_until(lambda: world.backend.last.messages == ["0", "1", "2"])
    assert world.backend.last.channels == {caller.channel: "oai-events", other: "other"}


def test_a_share_is_a_burst_and_then_a_rate() -> None:
    inflow = Inflow()
    assert [inflow.take(50.0) for _ in range(int(BURST) + 1)] == [True] * int(BURST) + [False]
    assert sum(inflow.take(50.25) for _ in range(1000)) == RATE / 4
    assert sum(inflow.take(1000.0) for _ in range(1000)) == BURST


async def test_an_event_too_large_is_answered_with_an_error_and_the_session_goes_on(
    autojump_clock: Any, world: Any, wait_until: Any
) -> None:
    world.backend.echo = False
    caller, _ = await world.live_call()
    peer, agent = caller.peer, world.backend.last
    peer._sctp._channels._max_message_size = 0  # a client that does not keep to what the answer said
    other = peer.open_channel("chat", trio.current_time())
    caller.drain()
    await trio.sleep(0.1)
    for channel in (other, caller.channel):
        assert peer.send_message(channel, "x" * (MAX_DATA_BYTES + 1), trio.current_time())
        caller.drain()
    await wait_until(lambda: caller.messages)
    event = json.loads(caller.messages[0])
    OFFICIAL.validate_python(event)
    assert (event["error"]["code"], event["error"]["event_id"]) == ("event_too_large", None)
    caller.say("y" * MAX_DATA_BYTES)
    await wait_until(lambda: agent.messages)
    assert [len(data) for data in agent.messages] == [MAX_DATA_BYTES]
    assert len([1 for message in caller.messages if "event_too_large" in str(message)]) == 1
    assert world.registry.all_drops()["message_too_large"] == 2

"""Calls on a link: what agents get and send, and that nothing one call or one message does harms another."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.abc import Clock
from trio.testing import memory_stream_pair, wait_all_tasks_blocked
from wsproto import ConnectionType, WSConnection
from wsproto.events import Request, TextMessage

from agent import Call, CallEnded, ChannelOpened, Digit, Draining, Event, Frame, Message, Played
from agent.agents import echo
from agent.link import Link
from agent.statistics import Statistics
from protocol.agentlink import (
    LINK_VERSION,
    MAX_MESSAGE_BYTES,
    AgentHello,
    CallAccept,
    CallClient,
    CallDigit,
    CallEnd,
    CallPlayed,
    CallRefuse,
    ChannelBlocked,
    ChannelClosed,
    ChannelWritable,
    DataMessage,
    Drain,
    MediaFlags,
    MediaRecord,
    PlayedReason,
    TransceiverHello,
    encode_media,
)
from service.websocket import accept

OpenLink = Callable[..., Awaitable["LinkClient"]]  # noqa: F821 - it lives in conftest.py


def frames(count: int, handle: int = 1) -> list[MediaRecord]:
    return [MediaRecord(handle, n * 160, 0, bytes([n % 256]) * 160) for n in range(count)]


async def test_an_agent_reads_who_placed_its_call_and_when_it_ends(autojump_clock: Clock, open_link: OpenLink):
    seen: list[tuple[str, str, int]] = []

    async def curious(call: Call) -> None:
        seen.append((call.client.key, call.client.safety_identifier, call.expires_at))

    client = await open_link(curious)
    await client.start_call(1, client=CallClient("shop", "user-7"), expires_at=1_800_000_000)
    await client.start_call(2)
    await client.until(lambda: len(seen) == 2)
    assert seen == [("shop", "user-7", 1_800_000_000), ("", "", 0)]


async def test_echo_returns_frames_and_messages_verbatim(autojump_clock: Clock, open_link: OpenLink):
    client = await open_link(echo)
    await client.start_call()
    await client.open_channel()
    await client.send_frames(*frames(20))
    for data in ("hello ✓", b"\x00\x01", "", b""):
        await client.send_data(1, 1, data)
    await client.until(lambda: len(client.payloads()) == 20 and len(client.data) == 4)
    assert client.payloads() == [record.payload for record in frames(20)]
    assert [record.rtp_time for record in client.media] == [n * 160 for n in range(20)]
    assert client.data == [DataMessage(1, 1, data) for data in ("hello ✓", b"\x00\x01", "", b"")]


async def test_frames_of_many_calls_share_messages_and_do_not_mix(autojump_clock: Clock, open_link: OpenLink):
    client = await open_link(echo)
    for handle in range(1, 9):
        await client.start_call(handle)
    batch = [record for n in range(10) for handle in range(1, 9) for record in frames(10, handle)[n : n + 1]]
    await client.send_frames(*batch)
    await client.until(lambda: len(client.media) == 80)
    for handle in range(1, 9):
        assert client.payloads(handle) == [record.payload for record in frames(10, handle)]
    assert client.media_messages < 40


async def test_a_link_begins_with_hello_and_names_the_codecs_of_its_agent(autojump_clock: Clock, open_link: OpenLink):
    async def needy(call: Call) -> None:
        await trio.sleep_forever()

    needy.codecs = ("PCMU", "PCMA")
    client = await open_link(needy)
    assert client.control[0] == AgentHello(LINK_VERSION, "under-test", ("PCMU", "PCMA"))
    await client.start_call(1, "pcmu")
    await client.start_call(2, "opus")
    await client.until(lambda: client.of(CallRefuse))
    assert client.control[1:] == [CallAccept(1), CallRefuse(2, "codec_unsupported")]


@pytest.mark.parametrize("first", ["not json", '{"type":"drain"}', '{"type":"hello","version":9,"transceiver":"x"}'])
async def test_a_link_that_does_not_begin_with_our_hello_is_closed(
    autojump_clock: Clock, open_link: OpenLink, first: str
):
    client = await open_link(echo, greet=False)
    await client.connection.send_message(first)
    await client.until(lambda: client.is_closed)
    assert client.connection.closed.code == 1002


async def test_a_silent_link_is_closed(autojump_clock: Clock, open_link: OpenLink):
    client = await open_link(echo, greet=False)
    await client.until(lambda: client.is_closed, seconds=12)


async def test_malformed_messages_are_counted_and_change_nothing(autojump_clock: Clock, open_link: OpenLink):
    client = await open_link(echo)
    await client.start_call()
    for noise in (
        "",
        "{",
        '{"type":"call.dance"}',
        '{"type":"call.end"}',
        b"",
        b"\x07",
        b"\x01\x00",
        b"\x02\x00",
        *encode_media([MediaRecord(99, 0, 0, b"x")]),
        *encode_media([MediaRecord(1, 0, 0, b"")]),
    ):
        await client.connection.send_message(noise)
    await client.send(CallPlayed(99, 0, 0, PlayedReason.PROGRESS), CallEnd(99, "hangup"))
    await client.send_data(1, 77, "no such channel")
    await client.send(TransceiverHello(LINK_VERSION, "again"))
    await client.send_frames(*frames(1))
    await client.until(lambda: client.payloads())
    assert dict(client.statistics.drops) == {
        "link_json": 2,
        "link_unknown_type": 1,
        "link_invalid": 1,
        "link_empty": 1,
        "link_unknown_kind": 1,
        "link_truncated": 2,
        "link_unknown_handle": 3,
        "link_unexpected_media": 1,
        "link_unknown_channel": 1,
        "link_second_hello": 1,
    }


async def test_a_frame_that_is_not_of_the_codec_never_reaches_an_agent(autojump_clock: Clock, open_link: OpenLink):
    client = await open_link(echo)
    await client.start_call(1, "opus")
    bad, good = b"\x03\x00", bytes.fromhex("78 0102030405")
    await client.send_frames(MediaRecord(1, 0, 0, bad), MediaRecord(1, 960, 0, good))
    await client.until(lambda: client.payloads())
    assert client.payloads() == [good]
    assert client.statistics.drops.total() == 1


async def test_a_crashing_agent_ends_its_own_call_with_a_reason_and_no_other(
    autojump_clock: Clock, open_link: OpenLink
):
    async def fragile(call: Call) -> None:
        async for message in call.messages():
            if message.data == "die":
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trio.sleep, 10)
                    raise RuntimeError("oops")
            await call.send_message(message.data)

    client = await open_link(fragile)
    for handle in (1, 2):
        await client.start_call(handle)
        await client.open_channel(handle)
    await client.send_data(1, 1, "die")
    await client.until(lambda: client.of(CallEnd))
    await client.send_data(2, 1, "alive")
    await client.until(lambda: client.data)
    assert client.of(CallEnd) == [CallEnd(1, "agent_failed")]
    assert client.data == [DataMessage(2, 1, "alive")]
    await wait_all_tasks_blocked()
    assert (client.statistics.calls, dict(client.statistics.calls_ended)) == (1, {"agent_failed": 1})


async def test_an_agent_that_returns_ends_its_call_after_its_last_message(autojump_clock: Clock, open_link: OpenLink):
    async def brief(call: Call) -> None:
        async for event in call:
            if isinstance(event, ChannelOpened):
                await call.send_message("bye")
                return

    client = await open_link(brief)
    await client.start_call()
    await client.open_channel()
    await client.until(lambda: client.of(CallEnd))
    assert client.data == [DataMessage(1, 1, "bye")]
    assert client.of(CallEnd) == [CallEnd(1, "agent_ended")]


async def test_an_agent_may_end_the_call_itself_with_its_own_word(autojump_clock: Clock, open_link: OpenLink):
    after: list[str | None] = []

    async def ender(call: Call) -> None:
        await call.end("said_everything")
        async for _ in call:
            pass
        after.append(call.ended)
        await call.send_frame(b"x")  # raises CallEnded, which is no failure

    client = await open_link(ender)
    await client.start_call()
    await client.until(lambda: client.of(CallEnd))
    await wait_all_tasks_blocked()
    assert client.of(CallEnd) == [CallEnd(1, "said_everything")]
    assert after == ["said_everything"]
    assert client.statistics.calls == 0


async def test_the_end_of_the_call_ends_the_streams_and_makes_sending_raise(autojump_clock: Clock, open_link: OpenLink):
    story: list[str] = []

    async def listener(call: Call) -> None:
        async for _ in call.frames():
            pass
        story.append(f"ended: {call.ended}")
        try:
            await call.send_message("anyone?")
        except CallEnded as ended:
            story.append(f"raised: {ended.reason}")

    client = await open_link(listener)
    await client.start_call()
    await client.send(CallEnd(1, "hangup"))
    with trio.fail_after(1):
        while len(story) < 2:
            await trio.sleep(0.01)
    assert story == ["ended: hangup", "raised: hangup"]
    assert client.of(CallEnd) == []


async def test_an_agent_that_ignores_the_end_is_cancelled_after_a_grace(autojump_clock: Clock, open_link: OpenLink):
    async def deaf(call: Call) -> None:
        await trio.sleep_forever()

    client = await open_link(deaf)
    await client.start_call()
    await client.send(CallEnd(1, "hangup"))
    await trio.sleep(4)
    assert client.statistics.calls == 1
    await trio.sleep(2)
    assert (client.statistics.calls, dict(client.statistics.calls_ended)) == (0, {"hangup": 1})


async def test_the_loss_of_the_link_ends_its_calls(autojump_clock: Clock, open_link: OpenLink):
    reasons: list[str | None] = []

    async def listener(call: Call) -> None:
        async for _ in call:
            pass
        reasons.append(call.ended)

    client = await open_link(listener)
    await client.start_call(1)
    await client.start_call(2)
    await client.connection.aclose()
    await trio.sleep(1)
    assert reasons == ["link_lost", "link_lost"]
    assert (client.statistics.calls, client.statistics.links) == (0, 0)


async def test_a_slow_agent_keeps_the_newest_second_of_audio_and_is_told_of_the_gap(
    autojump_clock: Clock, open_link: OpenLink
):
    heard: list[Frame] = []

    async def slow(call: Call) -> None:
        await trio.sleep(10)
        heard.extend([frame async for frame in call.frames()])

    client = await open_link(slow)
    await client.start_call()
    await client.say([bytes([n % 256]) * 160 for n in range(400)])
    await trio.sleep(5)
    await client.send(CallEnd(1, "hangup"))
    await trio.sleep(1)
    assert len(heard) == 50
    assert heard[-1].rtp_time == 399 * 160
    assert [frame.gap for frame in heard] == [True] + [False] * 49
    assert client.statistics.frames_dropped == 350


async def test_messages_that_no_agent_reads_are_bounded(autojump_clock: Clock, open_link: OpenLink):
    async def audio_only(call: Call) -> None:
        async for _ in call.frames():
            pass

    client = await open_link(audio_only)
    await client.start_call()
    await client.open_channel()
    for _ in range(10):
        await client.send_data(1, 1, bytes(200_000))
    await trio.sleep(1)
    assert client.statistics.messages_unread >= 5
    assert client.of(CallEnd) == []


async def test_an_agent_too_slow_for_its_messages_loses_its_call_rather_than_messages(
    autojump_clock: Clock, open_link: OpenLink
):
    async def slow(call: Call) -> None:
        async for _ in call.messages():
            await trio.sleep(1000)

    client = await open_link(slow)
    await client.start_call()
    await client.open_channel()
    for _ in range(10):
        await client.send_data(1, 1, bytes(200_000))
    await client.until(lambda: client.of(CallEnd))
    assert client.of(CallEnd) == [CallEnd(1, "agent_overloaded")]


async def test_sending_waits_when_five_seconds_are_not_played_yet(
    autojump_clock: Clock, open_link: OpenLink, play: Callable[..., object]
):
    async def talker(call: Call) -> None:
        for _ in range(500):
            await call.send_frame(b"\xff" * 160)
        assert await call.wait_played() == 10_000
        await call.end("done")

    client = await open_link(talker)
    await client.start_call()
    await trio.sleep(1)
    assert len(client.media) == 251
    play(client)  # from now on; what came before is lost to this player
    await client.send(CallPlayed(1, 251 * 160, 0, PlayedReason.DRAINED))
    began = trio.current_time()
    await client.until(lambda: client.of(CallEnd), seconds=20)
    assert client.of(CallEnd) == [CallEnd(1, "done")]
    assert trio.current_time() - began == pytest.approx(249 * 0.02, abs=0.3)


async def test_a_flush_returns_what_was_really_played(
    autojump_clock: Clock, open_link: OpenLink, play: Callable[..., object]
):
    played: list[float] = []

    async def talker(call: Call) -> None:
        for _ in range(100):
            await call.send_frame(b"\xff" * 160)
        await trio.sleep(0.5)
        played.append(await call.flush())
        assert call.ahead == 0
        await call.send_frame(b"\x00" * 160)
        played.append(await call.wait_played())
        await call.end("done")

    client = await open_link(talker)
    player = play(client)
    await client.start_call()
    await client.until(lambda: client.of(CallEnd))
    assert played[0] == pytest.approx(500, abs=60)
    assert played[1] == played[0] + 20
    assert player.played[-1] == b"\x00" * 160
    assert len(player.played) < 30


async def test_a_flush_does_not_wait_for_ever_for_its_report(autojump_clock: Clock, open_link: OpenLink):
    async def talker(call: Call) -> None:
        await call.send_frame(b"\xff" * 160)
        await trio.sleep(0.1)
        assert await call.flush() == 0
        await call.end("done")

    client = await open_link(talker)
    await client.start_call()
    await client.until(lambda: client.of(CallEnd))


async def test_a_blocked_channel_makes_only_its_own_call_wait(autojump_clock: Clock, open_link: OpenLink):
    client = await open_link(echo)
    for handle in (1, 2):
        await client.start_call(handle)
        await client.open_channel(handle)
    await client.send(ChannelBlocked(1, 1))
    for handle in (1, 2):
        await client.send_data(handle, 1, "x")
    await client.send_frames(*frames(1))
    await client.until(lambda: client.data and client.media)
    await trio.sleep(1)
    assert client.data == [DataMessage(2, 1, "x")]
    await client.send(ChannelWritable(1, 1))
    await client.until(lambda: len(client.data) == 2)


async def test_a_message_to_a_closed_channel_is_refused_not_an_error(autojump_clock: Clock, open_link: OpenLink):
    answers: list[bool] = []

    async def teller(call: Call) -> None:
        answers.append(await call.send_message("nobody has opened a channel"))
        async for event in call:
            if isinstance(event, ChannelOpened):
                answers.append(await call.send_message("one", 7))
                answers.append(await call.send_message("two"))

    client = await open_link(teller)
    await client.start_call()
    await client.open_channel(1, 3, "chat")
    await client.until(lambda: client.data)
    assert answers == [False, False, True]
    assert client.data == [DataMessage(1, 3, "two")]


async def test_the_merged_stream_tells_everything(autojump_clock: Clock, open_link: OpenLink):
    events: list[Event] = []

    async def listener(call: Call) -> None:
        assert call.id == "rtc_1"
        assert call.session == {"instructions": "hi"}
        assert call.codec is not None
        assert call.codec.name == "PCMU"
        async for event in call:
            events.append(event)  # noqa: PERF401 - read while it grows

    client = await open_link(listener)
    await client.start_call(session={"instructions": "hi"})
    await client.open_channel()
    await client.send_data(1, 1, "m")
    await client.send_frames(MediaRecord(1, 5, MediaFlags.MARKER | MediaFlags.GAP, b"\xff" * 160))
    await client.send(CallPlayed(1, 0, 40, PlayedReason.PROGRESS), Drain(), ChannelClosed(1, 1), CallDigit(1, "#"))
    with trio.fail_after(1):
        while len(events) < 7:
            await trio.sleep(0.01)
    assert {type(event).__name__ for event in events} == {
        "ChannelOpened",
        "Message",
        "Frame",
        "Played",
        "Draining",
        "ChannelClosed",
        "Digit",
    }
    assert Digit("#") in events
    assert Message("m", 1) in events
    assert Draining() in events
    assert Frame(b"\xff" * 160, 5, 20.0, marker=True, gap=True) in events
    assert Played(0.0, 40.0, PlayedReason.PROGRESS) in events


async def test_a_call_without_audio_has_messages(autojump_clock: Clock, open_link: OpenLink):
    client = await open_link(echo)
    await client.start_call(codec="")
    await client.open_channel()
    await client.send_data(1, 1, json.dumps({"a": 1}))
    await client.until(lambda: client.data)


async def test_calls_beyond_the_limit_are_refused(autojump_clock: Clock, open_link: OpenLink):
    client = await open_link(echo, max_calls=2)
    for handle in (1, 2, 3):
        await client.start_call(handle)
    await client.until(lambda: client.of(CallRefuse))
    assert client.of(CallRefuse) == [CallRefuse(3, "agent_full")]
    await client.send(CallEnd(1, "hangup"))
    await trio.sleep(0.1)
    await client.start_call(4)
    await client.until(lambda: CallAccept(4) in client.control)


async def test_a_message_that_cannot_be_sent_is_the_agents_error(autojump_clock: Clock, open_link: OpenLink):
    errors: list[str] = []

    async def clumsy(call: Call) -> None:
        for payload in (b"", bytes(1501)):
            try:
                await call.send_frame(payload)
            except ValueError as error:
                errors.append(str(error))

    client = await open_link(clumsy)
    await client.start_call()
    await client.until(lambda: client.of(CallEnd))
    assert len(errors) == 2


async def test_a_transceiver_that_answers_no_ping_is_given_up(nursery: trio.Nursery, autojump_clock: Clock):
    # The client here speaks raw WebSocket, so that it can fall silent.
    near, far = memory_stream_pair()
    statistics = Statistics()
    ended = trio.Event()

    async def serve() -> None:
        async with trio.open_nursery() as inner:
            connection = await accept(inner, far, max_message_bytes=MAX_MESSAGE_BYTES)
            assert connection is not None
            await Link(connection, echo, "under-test", statistics, 10).run()
            ended.set()
            inner.cancel_scope.cancel()

    nursery.start_soon(serve)
    client = WSConnection(ConnectionType.CLIENT)
    await near.send_all(client.send(Request(host="agent", target="/")))
    client.receive_data(await near.receive_some())
    list(client.events())
    await near.send_all(client.send(TextMessage('{"type":"hello","version":2,"transceiver":"mute"}')))
    with trio.fail_after(20):
        await ended.wait()
    assert statistics.links == 0

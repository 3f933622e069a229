"""What a service may do wrong, and what it costs: an error for the client, not the call. In virtual time."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
from realtime_service import Caller, Service, Session, frequency_of, tone
from trio.abc import Clock, Stream
from trio.testing import lockstep_stream_pair
from trio_websocket import wrap_server_stream

from agent.agents.upstream import make_upstream
from agent.upstream.config import UpstreamConfig
from protocol.agentlink import CallClient, CallEnd, ChannelBlocked

Dial = Callable[..., Awaitable[Caller]]
Fault = Callable[[Stream], Awaitable[None]]


def refusal(status: int, headers: list[tuple[bytes, bytes]] | None = None, body: bytes = b"{}") -> Fault:
    async def refuse(stream: Stream) -> None:
        async with trio.open_nursery() as nursery:
            request = await wrap_server_stream(nursery, stream)
            await request.reject(status, extra_headers=headers or [], body=body)

    return refuse


async def never_answers(stream: Stream) -> None:
    await trio.sleep_forever()


def errors(caller: Caller) -> list[str]:
    return [event["error"]["code"] for event in caller.of("error")]


async def test_a_refusal_is_told_and_the_call_waits_for_better_times(
    autojump_clock: Clock, dial: Dial, service: Service
):
    service.faults += [refusal(401, body=b'{"error":{"message":"Incorrect key sk-123"}}')] * 3
    caller = await dial()
    error = (await caller.read("error"))["error"]
    assert error["type"] == "server_error"
    assert error["code"] == "upstream_lost"
    assert "HTTP 401" in error["message"]
    assert "sk-123" not in error["message"]
    await caller.read("session.created")
    assert errors(caller) == ["upstream_lost"]
    assert len(service.attempts) == 4
    assert caller.counted("losses") == {"refused": 3}


async def test_a_service_that_asks_for_patience_gets_it(autojump_clock: Clock, dial: Dial, service: Service):
    service.faults.append(refusal(429, [(b"Retry-After", b"7")]))
    caller = await dial()
    await caller.read("session.created")
    assert service.attempts[1] - service.attempts[0] == pytest.approx(7, abs=0.1)


async def test_a_service_that_stays_away_is_given_up(autojump_clock: Clock, dial: Dial, service: Service):
    service.faults += [OSError("no route")] * 1000
    caller = await dial(give_up_seconds=30)
    began = trio.current_time()
    await caller.client.until(lambda: caller.client.of(CallEnd), 100)
    assert caller.client.of(CallEnd) == [CallEnd(1, "upstream_unreachable")]
    assert trio.current_time() - began == pytest.approx(30, abs=2)
    assert errors(caller) == ["upstream_lost", "upstream_given_up"]
    assert 5 <= len(service.attempts) <= 12


@pytest.mark.parametrize("beginning", ["no upgrade", "no session.created"])
async def test_a_service_that_does_not_begin_is_called_again(
    autojump_clock: Clock, dial: Dial, service: Service, beginning: str
):
    if beginning == "no upgrade":
        service.faults.append(never_answers)
    else:
        service.greets = False
    caller = await dial(connect_seconds=5)
    assert "in time" in (await caller.read("error"))["error"]["message"]
    service.greets = True
    await caller.read("session.created")
    assert service.attempts[1] - service.attempts[0] == pytest.approx(5.5, abs=0.3)
    assert caller.counted("losses") == {"late": 1}


async def test_a_stream_that_ends_before_it_is_a_websocket_is_no_reason_to_wait(
    autojump_clock: Clock, dial: Dial, service: Service
):
    service.faults.append(lambda stream: stream.aclose())
    caller = await dial()
    await caller.read("session.created", seconds=2)


async def converse(caller: Caller, session: Session) -> None:
    """A conversation worth remembering."""
    await caller.write("session.update", session={"type": "realtime", "instructions": "be brief", "tracing": "auto"})
    await caller.write("session.update", session={"type": "realtime", "audio": {"output": {"voice": "cedar"}}})
    await caller.read("session.updated", 2)
    await session.say_words("item_u", "what is the time", "user")
    await session.say_words("item_a", "it is noon")
    call = {"id": "item_c", "type": "function_call", "call_id": "call_1", "name": "clock", "arguments": "{}"}
    await session.send_dict("conversation.item.added", item=call)
    await session.send_dict("conversation.item.done", item=call)
    await caller.client.until(lambda: len(caller.of("conversation.item.done")) == 3)


async def test_a_lost_session_goes_on_from_its_words(autojump_clock: Clock, dial: Dial, service: Service):
    caller = await dial(session={"type": "realtime", "instructions": "of the offer", "max_output_tokens": 99})
    first = await service.session()
    await caller.read("session.updated")
    await converse(caller, first)
    await first.begin_response()
    await first.speak(tone(1500))
    await caller.read("output_audio_buffer.started")
    await first.connection.aclose(1011, "a crash")

    done = await caller.read("response.done")
    assert done["response"]["id"] == "resp_1"
    assert done["response"]["status"] == "failed"
    error = (await caller.read("error"))["error"]
    assert "1011 a crash" in error["message"]
    assert "lost" in error["message"]
    await caller.read("output_audio_buffer.stopped")
    assert caller.played_ms == 1500, "what had come of the answer is heard"

    second = await service.session(2)
    await caller.write("response.create")
    await second.read("response.create")
    assert second.types == ["session.update", *["conversation.item.create"] * 3, "response.create"]
    settings = second.received[0]["session"]
    assert settings["instructions"] == "be brief"
    assert settings["max_output_tokens"] == 99
    assert settings["tracing"] == "auto"
    assert settings["audio"]["output"]["voice"] == "cedar"
    items = [event["item"] for event in second.of("conversation.item.create")]
    assert [item["id"] for item in items] == ["item_u", "item_a", "item_c"]
    assert items[0]["content"] == [{"type": "input_text", "text": "what is the time"}]
    assert items[1]["content"] == [{"type": "output_text", "text": "it is noon"}]

    # The client knows these items: what the service says of them does not come twice.
    before = len(caller.of("conversation.item.added"))
    for event in second.of("conversation.item.create"):
        await second.send_dict("conversation.item.added", item=event["item"])
        await second.send_dict("conversation.item.done", item=event["item"])
    await second.say_words("item_new", "here I am again")
    await caller.client.until(lambda: len(caller.of("conversation.item.added")) > before)
    assert caller.events[-1]["item"]["id"] == "item_new"
    assert len(caller.of("session.created")) == 1
    assert caller.counted("restored_items") == {"": 3}


async def test_what_is_restored_of_a_message_is_what_was_heard(autojump_clock: Clock, dial: Dial, service: Service):
    caller = await dial()
    first = await service.session()
    await first.begin_response()
    await first.speak(tone(10_000), item_id="item_a")
    await first.end_sound(item_id="item_a")
    words = " ".join(f"word{number}" for number in range(100))
    await first.say_words("item_a", words)
    await first.end_response()
    await caller.read("output_audio_buffer.started")
    await trio.sleep(3)
    await first.hear_speech()
    await first.read("conversation.item.truncate")
    await first.connection.aclose(1001, "")
    second = await service.session(2)
    item = (await second.read("conversation.item.create"))["item"]
    text = item["content"][0]["text"]
    assert words.startswith(text + " ")
    assert len(text) / len(words) == pytest.approx(0.3, abs=0.03)


async def test_what_the_caller_says_while_there_is_no_service_is_heard_by_the_next(
    autojump_clock: Clock, dial: Dial, service: Service
):
    caller = await dial()
    first = await service.session()
    await caller.speak(caller.tone(500))
    service.faults += [OSError("away")] * 2
    await first.connection.aclose(1001, "")
    await caller.speak(caller.tone(3000, 900))
    second = await service.session(2)
    await second.until(lambda: len(second.pcm) > 48 * 2800)
    assert frequency_of(second.pcm[48 * 500 : 48 * 2500], 24_000) == pytest.approx(900, abs=4)


async def test_an_update_that_a_lost_session_never_answered_is_told_the_next(
    autojump_clock: Clock, dial: Dial, service: Service
):
    caller = await dial()
    first = await service.session()
    first.answers_updates = False
    await caller.write("session.update", event_id="mine", session={"type": "realtime", "instructions": "be brief"})
    await first.read("session.update")
    await first.connection.aclose(1001, "")
    assert (await caller.read("session.updated"))["session"]["instructions"] == "be brief"


async def test_an_item_of_a_lost_session_is_not_truncated_in_the_next(
    autojump_clock: Clock, dial: Dial, service: Service
):
    caller = await dial()
    first = await service.session()
    await first.begin_response()
    await first.speak(tone(20_000))
    await caller.read("output_audio_buffer.started")
    await first.connection.aclose(1001, "")
    second = await service.session(2)
    await second.hear_speech()
    await caller.read("output_audio_buffer.cleared")
    await trio.sleep(1)
    assert second.types == []


async def test_errors_about_what_we_asked_of_the_service_ourselves_do_not_reach_the_client(
    autojump_clock: Clock, dial: Dial, service: Service
):
    caller = await dial()
    session = await service.session()
    await session.begin_response()
    await session.speak(tone(5000))
    await caller.read("output_audio_buffer.started")
    await session.hear_speech()
    truncate = await session.read("conversation.item.truncate")
    body = {"type": "invalid_request_error", "message": "no such item", "code": None, "param": None}
    await session.send_dict("error", error={**body, "event_id": truncate["event_id"]})
    await caller.write("session.update", session={"type": "realtime", "instructions": "x"})
    update = await session.read("session.update")
    await session.send_dict("error", error={**body, "event_id": update["event_id"]})
    await session.send_dict("error", error={**body, "event_id": "the_clients"})
    await caller.read("error", 2)
    assert [event["error"]["event_id"] for event in caller.of("error")] == [None, "the_clients"]
    assert caller.counted("drops") == {"refused_truncate": 1}


GARBAGE: list[Any] = [
    "no JSON",
    b"\x00\x01",
    "[]",
    "5",
    '{"type": 5}',
    "{}",
    "[" * 5000,
    '{"type":"x","item":' + "[" * 5000 + "]" * 5000 + "}",
    '{"type":"response.output_audio.delta"}',
    '{"type":"response.output_audio.delta","response_id":"r","item_id":"i","content_index":0,"delta":"*"}',
    '{"type":"response.output_audio.delta","response_id":"r","item_id":"i","content_index":-1,"delta":"AAAA"}',
    '{"type":"response.output_audio.delta","response_id":5,"item_id":"i","content_index":0,"delta":"AAAA"}',
]
STRANGE: list[str] = [
    '{"type":"response.created","response":5}',
    '{"type":"response.done","response":{"id":7}}',
    '{"type":"response.done"}',
    '{"type":"session.updated","session":"x"}',
    '{"type":"session.updated","session":{"audio":[],"turn_detection":3}}',
    '{"type":"session.created"}',
    '{"type":"error"}',
    '{"type":"error","error":{"event_id":[]}}',
    '{"type":"conversation.item.added","item":{"id":"x","type":"message","role":"user","content":5}}',
    '{"type":"conversation.item.added","item":{"id":"x","type":"message"},"previous_item_id":"x"}',
    '{"type":"conversation.item.deleted","item_id":{}}',
    '{"type":"conversation.item.input_audio_transcription.completed","item_id":"x","content_index":1e9,"transcript":1}',
    '{"type":"input_audio_buffer.speech_started"}',
    '{"type":"response.output_audio.done","response_id":"nobody"}',
    '{"type":"never.heard.of"}',
]


async def test_garbage_is_dropped_and_told_once(autojump_clock: Clock, dial: Dial, service: Service):
    caller = await dial()
    session = await service.session()
    await caller.read("session.created")
    for data in GARBAGE:
        await session.send(data)
    await session.begin_response()
    await session.speak(tone(500))
    await session.end_response()
    await caller.read("output_audio_buffer.stopped")
    assert errors(caller) == ["upstream_invalid"]
    assert len(service.attempts) == 1
    assert sum(caller.counted("drops").values()) == len(GARBAGE)


async def test_whatever_is_strange_in_an_event_breaks_nothing(autojump_clock: Clock, dial: Dial, service: Service):
    caller = await dial()
    session = await service.session()
    for data in STRANGE:
        await session.send(data)
    await caller.client.until(lambda: any("never.heard.of" in str(message.data) for message in caller.client.data))
    assert len(service.attempts) == 1
    assert caller.counted("losses") == {}


async def test_an_event_beyond_the_bound_ends_the_session_and_not_the_call(
    autojump_clock: Clock, dial: Dial, service: Service
):
    caller = await dial(max_event_bytes=64 * 1024)
    session = await service.session()
    await session.send(json.dumps({"type": "x", "filling": "x" * 70_000}))
    await service.session(2)
    assert caller.counted("losses") == {"flooded": 1}
    assert "too large" in caller.of("error")[0]["error"]["message"]


async def test_a_refusal_without_end_is_not_read_to_its_end(autojump_clock: Clock, dial: Dial, service: Service):
    sent = 0

    async def endless(stream: Stream) -> None:
        nonlocal sent
        await stream.receive_some(4096)
        await stream.send_all(b"HTTP/1.1 401 No\r\nContent-Length: 1000000000\r\n\r\n")
        with suppress(trio.BrokenResourceError):
            while True:
                await stream.send_all(b"x" * 10_000)
                sent += 10_000

    service.faults.append(endless)
    service.stream_pair = lockstep_stream_pair
    caller = await dial(max_event_bytes=64 * 1024)
    await caller.read("session.created")
    assert caller.counted("losses") == {"flooded": 1}
    assert sent < 1_000_000


async def test_a_service_that_reads_nothing_has_stalled(autojump_clock: Clock, dial: Dial, service: Service):
    async def deaf(stream: Stream) -> None:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                request = await wrap_server_stream(nursery, stream)
                session = Session(await request.accept(), 1)
                await session.greet()
                scope.cancel()  # nobody reads any more
        await trio.sleep_forever()

    service.faults.append(deaf)
    service.stream_pair = lockstep_stream_pair
    caller = await dial(write_seconds=5)
    await caller.read("session.created")
    await caller.speak(caller.tone(8000))
    await service.session(1)
    assert caller.counted("losses") == {"stalled": 1}


async def test_a_service_that_does_not_answer_pings_has_stalled(autojump_clock: Clock, dial: Dial, service: Service):
    async def mute(stream: Stream) -> None:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                request = await wrap_server_stream(nursery, stream)
                await Session(await request.accept(), 1).greet()
                scope.cancel()
        await trio.sleep_forever()

    service.faults.append(mute)
    caller = await dial(ping_seconds=10)
    await caller.read("session.created")
    await service.session(1)
    assert service.attempts[1] - service.attempts[0] == pytest.approx(20.5, abs=0.5)
    assert caller.counted("losses") == {"stalled": 1}


async def test_a_service_that_hangs_up_as_soon_as_it_has_begun_is_given_up(
    autojump_clock: Clock, dial: Dial, service: Service
):
    async def flapping(stream: Stream) -> None:
        async with trio.open_nursery() as nursery:
            request = await wrap_server_stream(nursery, stream)
            session = Session(await request.accept(), 1)
            await session.greet()
            await session.connection.aclose(1013, "busy")

    service.faults += [flapping] * 1000
    caller = await dial()
    await caller.client.until(lambda: caller.client.of(CallEnd), 200)
    assert caller.client.of(CallEnd) == [CallEnd(1, "upstream_closed")]
    assert len(service.attempts) < 20
    assert errors(caller) == ["upstream_lost", "upstream_given_up"]


async def test_an_event_that_is_too_large_for_the_channel_is_told(autojump_clock: Clock, dial: Dial, service: Service):
    caller = await dial()
    session = await service.session()
    await session.update({"instructions": "ü" * 140_000})
    await caller.read("error")
    assert errors(caller) == ["upstream_event_too_large"]


async def test_a_client_that_says_too_much_while_there_is_no_service_is_told(
    autojump_clock: Clock, dial: Dial, service: Service
):
    service.faults.append(never_answers)
    caller = await dial()
    for number in range(300):
        await caller.write("conversation.item.delete", event_id=f"e{number}", item_id="x")
    await caller.read("error", 44)
    assert {event["error"]["code"] for event in caller.of("error")} == {"server_busy"}
    assert caller.of("error")[0]["error"]["event_id"] == "e256"


async def test_a_client_that_says_what_is_no_event_is_told(autojump_clock: Clock, dial: Dial, service: Service):
    caller = await dial()
    for data in ("no JSON", b"\xff", "[]", '{"type": 7}'):
        await caller.client.send_data(1, 1, data)
    await caller.read("error", 4)
    assert set(errors(caller)) == {"invalid_json"}


async def test_a_client_that_reads_no_events_loses_its_call(autojump_clock: Clock, dial: Dial, service: Service):
    caller = await dial()
    session = await service.session()
    await caller.read("session.created")
    await caller.client.send(ChannelBlocked(1, 1))
    for _ in range(30):
        await session.update({"instructions": "x" * 200_000})
    await caller.client.until(lambda: caller.client.of(CallEnd), 30)
    assert caller.client.of(CallEnd) == [CallEnd(1, "events_unread")]


async def test_the_key_opens_the_service_and_is_in_no_log(
    autojump_clock: Clock,
    service: Service,
    open_link: Callable[..., Awaitable[Any]],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
):
    caplog.set_level("DEBUG")
    config = UpstreamConfig(url="ws://localhost/v1/realtime?x=1", model="a b", key_variable="KEY")
    agent = make_upstream(config, {"KEY": "sk-secret\n"}, service.dial)
    service.faults.append(refusal(500, body=b"sk-secret"))
    client = await open_link(agent)
    await client.start_call(1, client=CallClient("a key of ours", "who calls"))
    await client.open_channel()
    await service.session()
    path, headers = service.requests[0]
    assert headers[b"authorization"] == b"Bearer sk-secret"
    assert headers[b"openai-safety-identifier"] == b"who calls"
    assert path == "/v1/realtime?x=1&model=a%20b"
    written = capsys.readouterr()
    assert "call started" in written.out
    assert "sk-secret" not in written.out + written.err + caplog.text

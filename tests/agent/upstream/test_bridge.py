"""A call that is bridged to a Realtime service: what both sides hear and read, in virtual time."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable

import numpy as np
import pytest
import trio
from realtime_service import Caller, Service, frequency_of, tone
from trio.abc import Clock
from trio.testing import lockstep_stream_pair

from agent.codecs.opus import find_opus
from protocol.agentlink import CallEnd
from protocol.codecs import OPUS, PCMA, PCMU, Codec

Dial = Callable[..., Awaitable[Caller]]
needs_opus = pytest.mark.skipif(find_opus() is None, reason="no libopus here")
CODECS = [PCMU, PCMA, pytest.param(OPUS, marks=needs_opus)]


async def test_a_client_is_greeted_by_the_service_and_configures_its_session(
    autojump_clock: Clock, dial: Dial, service: Service
):
    caller = await dial()
    created = await caller.read("session.created")
    assert created["session"]["audio"]["output"]["voice"] == "marin"
    await caller.write("session.update", event_id="mine", session={"type": "realtime", "instructions": "be brief"})
    updated = await caller.read("session.updated")
    assert updated["session"]["instructions"] == "be brief"
    session = await service.session()
    assert session.of("session.update")[0]["event_id"] == "mine"
    assert service.requests[0][0] == "/v1/realtime?model=m"


@pytest.mark.parametrize("codec", CODECS)
async def test_what_the_caller_says_reaches_the_service_at_24_khz(
    autojump_clock: Clock, dial: Dial, service: Service, codec: Codec
):
    caller = await dial(codec=codec)
    session = await service.session()
    await caller.speak(caller.tone(1000, 500))
    await session.until(lambda: len(session.pcm) >= 48 * 900)
    assert frequency_of(session.pcm[48 * 200 : 48 * 800], 24_000) == pytest.approx(500, abs=4)
    assert max(session.appends) <= 48 * 100


@pytest.mark.parametrize("codec", CODECS)
async def test_what_the_service_says_reaches_the_caller_in_its_own_time(
    autojump_clock: Clock, dial: Dial, service: Service, codec: Codec
):
    caller = await dial(codec=codec)
    session = await service.session()
    began = trio.current_time()
    await session.begin_response()
    await session.speak(tone(3000, 700))
    await session.end_sound()
    await session.end_response()
    await caller.read("output_audio_buffer.stopped")
    assert trio.current_time() - began == pytest.approx(3.0, abs=0.3)
    heard = caller.heard()
    assert len(heard) / 2 / caller.rate == pytest.approx(3.0, abs=0.05)
    middle = heard[caller.rate : caller.rate * 5]
    assert frequency_of(middle, caller.rate) == pytest.approx(700, abs=4)
    assert caller.types == [
        "session.created",
        "response.created",
        "output_audio_buffer.started",
        "response.output_audio.done",
        "response.done",
        "output_audio_buffer.stopped",
    ]
    assert caller.of("output_audio_buffer.started")[0]["response_id"] == "resp_1"


async def test_a_caller_who_speaks_over_the_service_silences_it_and_it_learns_what_was_heard(
    autojump_clock: Clock, dial: Dial, service: Service
):
    caller = await dial()
    session = await service.session()
    await session.begin_response()
    await session.speak(tone(20_000))
    await caller.read("output_audio_buffer.started")
    await trio.sleep(2.3)
    await session.hear_speech()
    truncate = await session.read("conversation.item.truncate")
    assert truncate["item_id"] == "item_1"
    assert truncate["audio_end_ms"] == pytest.approx(caller.played_ms, abs=20)
    assert truncate["audio_end_ms"] == pytest.approx(2300, abs=60)
    await session.speak(tone(1000))  # it comes too late
    await session.end_response(status="cancelled")
    await session.send_dict(
        "conversation.item.truncated", **{k: truncate[k] for k in ("item_id", "content_index", "audio_end_ms")}
    )
    await caller.read("conversation.item.truncated")
    await trio.sleep(2)
    assert caller.played_ms == pytest.approx(truncate["audio_end_ms"], abs=20)
    assert caller.types[-4:] == [
        "input_audio_buffer.speech_started",
        "output_audio_buffer.cleared",
        "response.done",
        "conversation.item.truncated",
    ]
    assert caller.counted("drops") == {"late_audio": 5}
    assert caller.counted("interruptions") == {"": 1}


async def test_the_answer_after_an_interruption_is_heard_whole(autojump_clock: Clock, dial: Dial, service: Service):
    caller = await dial()
    session = await service.session()
    await session.begin_response()
    await session.speak(tone(10_000, 400))
    await caller.read("output_audio_buffer.started")
    await trio.sleep(1)
    await session.hear_speech()
    await session.end_response(status="cancelled")
    await session.begin_response("resp_2")
    await session.speak(tone(2000, 900), "resp_2", "item_2")
    await session.end_sound("resp_2", "item_2")
    await session.end_response("resp_2")
    stopped = await caller.read("output_audio_buffer.stopped")
    assert stopped["response_id"] == "resp_2"
    heard = caller.heard()[-2 * 8 * 1900 :]
    assert frequency_of(heard, 8000) == pytest.approx(900, abs=4)
    assert caller.played_ms == pytest.approx(3000, abs=80)
    assert len(session.of("conversation.item.truncate")) == 1


async def test_a_session_that_forbids_interruptions_is_not_interrupted(
    autojump_clock: Clock, dial: Dial, service: Service
):
    caller = await dial()
    session = await service.session()
    detection = {"type": "server_vad", "interrupt_response": False}
    await caller.write(
        "session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": detection}}}
    )
    await caller.read("session.updated")
    await session.begin_response()
    await session.speak(tone(2000))
    await session.end_response()
    await caller.read("output_audio_buffer.started")
    await session.hear_speech()
    await caller.read("output_audio_buffer.stopped")
    assert caller.played_ms == 2000
    assert not session.of("conversation.item.truncate")


async def test_a_client_silences_the_service_as_the_sdk_does(autojump_clock: Clock, dial: Dial, service: Service):
    caller = await dial()
    session = await service.session()
    await session.begin_response()
    await session.speak(tone(10_000))
    await caller.read("output_audio_buffer.started")
    await trio.sleep(1.5)
    await caller.write("response.cancel")
    await caller.write("output_audio_buffer.clear")
    cleared = await caller.read("output_audio_buffer.cleared")
    assert cleared["response_id"] == "resp_1"
    truncate = await session.read("conversation.item.truncate")
    assert truncate["audio_end_ms"] == pytest.approx(1500, abs=60)
    assert session.types == ["response.cancel", "conversation.item.truncate"]
    played = caller.played_ms
    await trio.sleep(1)
    assert caller.played_ms == played


async def test_an_answer_that_was_heard_to_its_end_is_not_truncated(
    autojump_clock: Clock, dial: Dial, service: Service
):
    caller = await dial()
    session = await service.session()
    await session.begin_response()
    await session.speak(tone(1010))
    await session.end_sound()
    await session.end_response()
    await caller.read("output_audio_buffer.stopped")
    await session.hear_speech()
    await caller.write("output_audio_buffer.clear")
    await trio.sleep(1)
    assert not session.of("conversation.item.truncate")
    assert "output_audio_buffer.cleared" not in caller.types
    assert caller.played_ms == 1020


async def test_each_item_of_an_answer_is_truncated_at_what_was_heard_of_it(
    autojump_clock: Clock, dial: Dial, service: Service
):
    caller = await dial()
    session = await service.session()
    await session.begin_response()
    for number in range(3):
        await session.speak(tone(1000), item_id=f"item_{number}")
        await session.end_sound(item_id=f"item_{number}")
    await session.end_response()
    await caller.read("output_audio_buffer.started")
    await trio.sleep(1.5)
    await session.hear_speech()
    await session.until(lambda: len(session.of("conversation.item.truncate")) == 2)
    heard = {event["item_id"]: event["audio_end_ms"] for event in session.of("conversation.item.truncate")}
    assert heard == {"item_1": pytest.approx(500, abs=60), "item_2": 0}


async def test_functions_pass_through(autojump_clock: Clock, dial: Dial, service: Service):
    caller = await dial()
    session = await service.session()
    tool = {"type": "function", "name": "light", "parameters": {"type": "object"}}
    await caller.write("session.update", session={"type": "realtime", "tools": [tool]})
    await session.begin_response()
    place = {"response_id": "resp_1", "item_id": "item_1", "output_index": 0, "call_id": "call_1"}
    await session.send_dict("response.function_call_arguments.delta", delta='{"on":', **place)
    await session.send_dict("response.function_call_arguments.done", name="light", arguments='{"on":true}', **place)
    await session.end_response()
    done = await caller.read("response.function_call_arguments.done")
    assert json.loads(done["arguments"]) == {"on": True}
    output = {"type": "function_call_output", "call_id": done["call_id"], "output": "on"}
    await caller.write("conversation.item.create", item=output)
    await caller.write("response.create")
    assert (await session.read("conversation.item.create"))["item"] == output
    await session.read("response.create")
    assert session.of("session.update")[0]["session"]["tools"] == [tool]


async def test_audio_formats_are_ours_to_the_service_and_the_clients_to_the_client(
    autojump_clock: Clock, dial: Dial, service: Service
):
    caller = await dial()
    asked = {
        "input": {"format": {"type": "audio/pcmu"}},
        "output": {"format": {"type": "audio/pcma"}, "voice": "cedar"},
    }
    await caller.write("session.update", session={"type": "realtime", "audio": asked})
    updated = await caller.read("session.updated")
    assert updated["session"]["audio"] == asked
    session = await service.session()
    told = session.of("session.update")[0]["session"]["audio"]
    assert told["input"]["format"] == told["output"]["format"] == {"type": "audio/pcm", "rate": 24000}
    assert told["output"]["voice"] == "cedar"
    await caller.write("response.create", response={"audio": {"output": {"format": {"type": "audio/pcmu"}}}})
    create = await session.read("response.create")
    assert create["response"]["audio"]["output"]["format"]["type"] == "audio/pcm"


async def test_the_session_of_the_offer_is_told_to_the_service_but_for_its_model(
    autojump_clock: Clock, dial: Dial, service: Service
):
    caller = await dial(session={"type": "realtime", "instructions": "from the offer", "model": "upstream"})
    session = await service.session()
    told = (await session.read("session.update"))["session"]
    assert told == {"type": "realtime", "instructions": "from the offer"}
    await caller.read("session.updated")
    assert caller.types == ["session.created", "session.updated"]


async def test_audio_that_a_client_appends_is_dropped_and_a_commit_stands_behind_what_was_said(
    autojump_clock: Clock, dial: Dial, service: Service
):
    caller = await dial()
    session = await service.session()
    await caller.read("session.created")
    await caller.write("input_audio_buffer.append", audio="AAAA")
    await caller.speak(caller.tone(100))
    await caller.write("input_audio_buffer.commit")
    await session.read("input_audio_buffer.commit")
    assert len(session.pcm) / 48 == pytest.approx(100, abs=1)
    assert caller.counted("drops") == {"client_append": 1}


async def test_what_the_client_says_before_the_service_is_there_waits(
    autojump_clock: Clock, dial: Dial, service: Service
):
    async def slow(stream: trio.abc.Stream) -> None:
        await trio.sleep(3)
        await service.serve(stream)

    service.faults.append(slow)
    caller = await dial()
    await caller.write("session.update", session={"type": "realtime", "instructions": "early"})
    await caller.speak(caller.tone(2000, 600))
    session = await service.session()
    await session.until(lambda: len(session.pcm) >= 48 * 1900)
    assert frequency_of(session.pcm[: 48 * 1900], 24_000) == pytest.approx(600, abs=4)
    assert (await session.read("session.update"))["session"]["instructions"] == "early"


async def test_a_caller_who_sends_nothing_is_silence_to_the_service(
    autojump_clock: Clock, dial: Dial, service: Service
):
    caller = await dial()
    session = await service.session()
    await caller.speak(caller.tone(500))
    await trio.sleep(5)
    assert len(session.pcm) / 48 == pytest.approx(5500, abs=250)
    assert np.abs(np.frombuffer(session.pcm[48 * 600 :], np.int16)).max() <= 1  # the resampler's dither
    await caller.speak(caller.tone(500, 800))
    assert frequency_of(session.pcm[-48 * 400 :], 24_000) == pytest.approx(800, abs=6)
    await trio.sleep(120)
    assert len(session.pcm) / 48 < 50_000


async def test_a_call_without_audio_is_bridged_in_words(autojump_clock: Clock, dial: Dial, service: Service):
    caller = await dial(codec=None)
    session = await service.session()
    await caller.write("response.create")
    await session.read("response.create")
    await session.begin_response()
    await session.speak(tone(1000))
    part = {"response_id": "resp_1", "item_id": "item_1", "output_index": 0, "content_index": 0}
    await session.send_dict("response.output_text.delta", delta="hello", **part)
    await session.end_response()
    await caller.read("response.done")
    assert caller.types == ["session.created", "response.created", "response.output_text.delta", "response.done"]
    assert caller.counted("drops") == {"audio_unheard": 5}


async def test_a_call_without_a_channel_is_heard_and_answered(autojump_clock: Clock, dial: Dial, service: Service):
    caller = await dial(channel=False)
    session = await service.session()
    await caller.speak(caller.tone(500))
    await session.begin_response()
    await session.speak(tone(1000))
    await session.end_response()
    await trio.sleep(2)
    assert caller.played_ms == 1000
    assert len(session.pcm) > 48 * 400
    await caller.client.open_channel()
    assert (await caller.read("session.created"))["type"] == "session.created"


async def test_a_caller_without_a_channel_does_not_lose_the_call_for_unread_events(
    autojump_clock: Clock, dial: Dial, service: Service
):
    caller = await dial(channel=False)
    session = await service.session()
    for _ in range(30):
        await session.update({"instructions": "x" * 200_000})
    await trio.sleep(1)
    assert caller.client.of(CallEnd) == []
    assert caller.counted("drops")["early"] > 0


async def test_sound_beyond_the_bound_makes_the_service_wait_and_is_heard_whole(
    autojump_clock: Clock, dial: Dial, service: Service
):
    service.stream_pair = lockstep_stream_pair
    caller = await dial(max_sound_bytes=128 * 1024)
    session = await service.session()
    await session.begin_response()
    began = trio.current_time()
    await session.speak(tone(30_000))
    assert trio.current_time() - began > 10, "it was made to wait"
    await session.end_response()
    await caller.read("output_audio_buffer.stopped", seconds=60)
    assert caller.played_ms == 30_000
    assert caller.counted("sound_waits")[""] > 0


async def test_an_item_that_is_too_large_for_the_channel_comes_without_its_sound(
    autojump_clock: Clock, dial: Dial, service: Service
):
    caller = await dial()
    session = await service.session()
    content = [{"type": "input_audio", "audio": "A" * 400_000, "transcript": "what I said"}]
    item = {"id": "item_9", "type": "message", "role": "user", "content": content}
    await session.send_dict("conversation.item.retrieved", item=item)
    retrieved = await caller.read("conversation.item.retrieved")
    assert retrieved["item"]["content"] == [{"type": "input_audio", "transcript": "what I said"}]


async def test_the_names_of_the_beta_are_understood_for_sound(autojump_clock: Clock, dial: Dial, service: Service):
    caller = await dial()
    session = await service.session()
    delta = base64.b64encode(tone(500)).decode()
    fields = {"event_id": "e", "response_id": "r", "item_id": "i", "output_index": 0, "content_index": 0}
    await session.send(json.dumps({"type": "response.audio.delta", "delta": delta, **fields}))
    await session.end_response("r")
    await caller.read("output_audio_buffer.stopped")
    assert caller.played_ms == 500


async def test_a_call_that_ends_says_goodbye_to_the_service(autojump_clock: Clock, dial: Dial, service: Service):
    caller = await dial()
    session = await service.session()
    await caller.client.send(CallEnd(1, "hangup"))
    await session.until(lambda: session.is_closed)
    assert session.connection.closed is not None
    assert session.connection.closed.code == 1000
    await trio.sleep(5)
    assert len(service.attempts) == 1
    assert caller.counted("losses") == {}
    assert caller.counted("open") == {"": 0}

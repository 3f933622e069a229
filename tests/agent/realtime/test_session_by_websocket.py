"""A session whose client plays by itself: audio in events both ways, and what is then different."""

from __future__ import annotations

import base64
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from realtime_client import Client, types

from agent.realtime.client_events import MAX_APPEND_BYTES, PIECE_LENGTH
from agent.realtime.orders import CutAudio, Generate, Hear, StopModel


@pytest.fixture
def client() -> Client:
    return Client(plays=False)


def answer(client: Client, sound: bytes = b"\x01\x02") -> str:
    """A response under way, with two seconds of sound."""
    client.send("response.create")
    response_id = client.response_id
    client.session.say(response_id, "two words")
    assert client.session.sound(response_id, 2000.0, client.now, sound)
    return response_id


def test_audio_that_is_appended_is_ordered_to_be_heard_and_not_answered(client: Client):
    audio = random.Random(1).randbytes(999)
    assert client.send("input_audio_buffer.append", audio=base64.b64encode(audio).decode()) == []
    assert client.order(Hear) == Hear(audio)
    assert client.send("input_audio_buffer.append", audio="") == []


def test_over_webrtc_what_is_appended_is_passed_over():
    client = Client()
    assert client.send("input_audio_buffer.append", audio="no base64") == []
    assert client.count(Hear) == 0


@pytest.mark.parametrize("audio", ["A", "AAA", "AA==A", "AA-_", "A A=", "ä", "AAAA\n", "====", "A=AA"])
def test_what_is_no_base64_is_an_error(client: Client, audio: str):
    [event] = client.send("input_audio_buffer.append", audio=audio)
    assert (event["error"]["code"], event["error"]["param"]) == ("invalid_value", "audio")
    assert event["error"]["event_id"].startswith("ours_")
    assert client.count(Hear) == 0


@pytest.mark.parametrize("size", [PIECE_LENGTH * 3 // 4, PIECE_LENGTH, 100_001])
def test_a_long_append_is_read_in_steps_and_heard_whole(client: Client, size: int):
    audio = random.Random(1).randbytes(size)
    text = json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(audio).decode()})
    steps = 0
    for _ in client.session.receive_in_steps_untrusted(text, client.now):
        assert client.session.poll() == [], "it may still turn out to be wrong"
        steps += 1
    assert steps == -(-size * 4 // 3 // PIECE_LENGTH)
    assert b"".join(order.audio for order in client.session.poll() if isinstance(order, Hear)) == audio


@pytest.mark.parametrize(
    ("place", "letters"), [(0, "=="), (PIECE_LENGTH - 1, "="), (PIECE_LENGTH - 2, "=="), (-3, "ä")]
)
def test_nothing_is_heard_of_a_long_append_that_is_wrong_somewhere(client: Client, place: int, letters: str):
    audio = [*"A" * (3 * PIECE_LENGTH)]
    audio[place : place + len(letters) if place >= 0 else -2] = letters
    [event] = client.send("input_audio_buffer.append", audio="".join(audio))
    assert (event["error"]["code"], event["error"]["param"]) == ("invalid_value", "audio")
    assert client.count(Hear) == 0


def test_only_an_append_may_be_large(client: Client):
    assert client.send("input_audio_buffer.append", audio="A" * (1 << 20)) == []
    [event] = client.send("session.update", session={"instructions": "A" * (1 << 20)})
    assert event["error"]["code"] == "event_too_large"
    [event] = client.send_raw('{"type": ["input_audio_buffer.append"], "audio": "' + "A" * (1 << 20) + '"}')
    assert event["error"]["code"] == "event_too_large"
    [event] = client.send("input_audio_buffer.append", audio="A" * (MAX_APPEND_BYTES + 4))
    assert (event["error"]["code"], event["error"]["param"]) == ("event_too_large", "audio")


def test_sound_is_told_in_its_place_and_nothing_is_told_of_what_was_played(client: Client):
    response_id = answer(client)
    client.session.completed(response_id, client.now)
    told = client.take()
    assert types(told)[-9:] == [
        "response.content_part.added",
        "response.output_audio_transcript.delta",
        "response.output_audio.delta",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "response.output_item.done",
        "conversation.item.done",
        "response.done",
    ]
    [delta] = [event for event in told if event["type"] == "response.output_audio.delta"]
    assert base64.b64decode(delta["delta"]) == b"\x01\x02"
    assert not any(kind.startswith("output_audio_buffer") for kind in types(client.events))
    assert answer(client) != response_id


def test_who_speaks_over_a_response_stops_its_model_and_truncates_by_himself(client: Client):
    response_id = answer(client)
    client.take()
    client.session.heard(1000.0)
    client.session.speech_began(900.0, client.now)
    told = client.take()
    assert types(told)[0] == "input_audio_buffer.speech_started"
    assert told[-1]["response"]["status_details"] == {"type": "cancelled", "reason": "turn_detected", "error": None}
    assert client.order(StopModel) == StopModel(response_id)
    assert client.count(CutAudio) == 0
    item_id = told[-1]["response"]["output"][0]["id"]
    part = {"item_id": item_id, "content_index": 0}
    assert types(client.send("conversation.item.truncate", **part, audio_end_ms=2001)) == ["error"]
    [truncated] = client.send("conversation.item.truncate", **part, audio_end_ms=1000)
    assert truncated["audio_end_ms"] == 1000
    assert not client.session.sound(response_id, 100.0, client.now, b"late")


def test_a_response_that_is_heard_yet_by_its_client_is_over_for_us(client: Client):
    client.session.completed(answer(client), client.now)
    client.take()
    assert types(client.send("response.cancel")) == ["error"]
    [event] = client.send("output_audio_buffer.clear")
    assert event["error"]["code"] == "unsupported"


def test_a_silent_caller_is_waited_for_from_the_end_of_what_the_client_plays(client: Client):
    client.configure(audio={"input": {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 5000}}})
    client.session.completed(answer(client), client.now)
    assert client.session.next_timeout() == client.now + 2.0 + 5.0
    client.session.cut_short(answer(client), client.now + 1)
    assert client.session.next_timeout() == client.now + 4.0 + 5.0
    client.send("response.cancel")
    answer(client)
    client.send("response.cancel")
    assert client.session.next_timeout() > client.now + 5.0
    client.session.heard(1000.0)
    client.session.speech_began(900.0, client.now)
    client.session.heard(1000.0)
    client.session.speech_ended(1900.0, client.now)
    client.take()
    client.session.completed(client.order(Generate).plan.response_id, client.now)
    assert client.session.next_timeout() == client.now + 5.0


def test_a_client_that_comes_later_is_greeted_alone_with_the_session_as_it_is():
    client = Client()
    client.configure(instructions="changed")
    client.session.greet(0x10000)
    [created] = client.take()
    assert created["type"] == "session.created"
    assert created["session"]["instructions"] == "changed"
    assert client.private == [(0x10000, created)]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.binary(max_size=300) | st.text(max_size=300))
def test_no_event_raises(data: str | bytes):
    client = Client(plays=False)
    for event in client.send_raw(data):
        assert event["type"] == "error"


def test_a_pause_is_as_long_as_its_audio_however_fast_that_comes(client: Client):
    client.configure(audio={"input": {"turn_detection": {"type": "semantic_vad"}}})
    session = client.session
    session.heard(1000.0)
    session.speech_began(500.0, client.now)
    session.heard(300.0)
    session.speech_ended(1300.0, client.now)
    client.take()
    client.now += 60.0  # nothing comes
    assert session.next_timeout() > client.now
    session.handle_timeout(client.now)
    assert client.take() == []
    session.heard(300.0)
    session.handle_timeout(client.now)
    assert client.take() == []
    session.heard(200.0)
    session.handle_timeout(client.now)
    events = client.take()
    assert types(events)[:2] == ["input_audio_buffer.speech_stopped", "input_audio_buffer.committed"]
    assert events[0]["audio_end_ms"] == 1800

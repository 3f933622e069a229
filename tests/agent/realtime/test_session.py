"""A session as its client lives it. Every event of ours is valid for the types of the `openai` package: see conftest."""

from __future__ import annotations

import json

import pytest
from realtime_client import Client, types

from agent.realtime.orders import CutAudio, DetectTurns, Generate, StopModel, Transcribe
from agent.realtime.server_events import Usage
from protocol.realtime.settings import KEPT_SECONDS, SemanticVad, ServerVad

TURN_EVENTS = [
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "input_audio_buffer.committed",
    "conversation.item.added",
    "conversation.item.done",
]
MESSAGE = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}


# Session


def test_a_session_introduces_itself(client: Client):
    created, conversation = client.events
    assert created["type"] == "session.created"
    session = created["session"]
    assert session["id"].startswith("sess_")
    assert session["object"] == "realtime.session"
    assert session["audio"]["input"]["turn_detection"]["type"] == "server_vad"
    assert conversation["conversation"]["id"].startswith("conv_")
    assert client.order(DetectTurns).how == ServerVad()


def test_an_update_is_confirmed_whole_and_the_detector_is_told(client: Client):
    session = client.configure(instructions="x", audio={"input": {"turn_detection": {"type": "semantic_vad"}}})
    assert session["instructions"] == "x"
    assert client.order(DetectTurns).how == SemanticVad()
    told = client.count(DetectTurns)
    client.configure(instructions="y")
    assert client.count(DetectTurns) == told


@pytest.mark.parametrize(
    ("kind", "fields", "code"),
    [
        ("no.such.event", {}, "invalid_value"),
        ("session.update", {"session": {"instructions": 1}}, "invalid_type"),
        ("conversation.item.retrieve", {"item_id": "nope"}, "item_not_found"),
        ("conversation.item.delete", {"item_id": "nope"}, "item_not_found"),
        ("conversation.item.truncate", {"item_id": "n", "content_index": 0, "audio_end_ms": 0}, "item_not_found"),
        ("conversation.item.create", {"item": MESSAGE, "previous_item_id": "nope"}, "item_not_found"),
        ("input_audio_buffer.commit", {}, "input_audio_buffer_commit_empty"),
        ("response.cancel", {}, "response_cancel_not_active"),
        ("response.create", {"response": {"input": [{"type": "item_reference", "id": "n"}]}}, "item_not_found"),
    ],
)
def test_a_mistake_is_answered_to_who_made_it_by_the_name_of_his_event(
    client: Client, kind: str, fields: dict[str, object], code: str
):
    (event,) = client.send(kind, **fields)
    assert event["type"] == "error"
    assert event["error"]["code"] == code
    assert event["error"]["event_id"] == "ours_0"
    assert event["error"]["message"]
    assert [number for number, _ in client.private] == [0]
    assert client.configure(instructions="it goes on")["instructions"] == "it goes on"


def test_what_is_too_large_to_be_told_is_an_error_and_not_the_end(client: Client):
    content = [{"type": "input_text", "text": "x" * (256 * 1024 - 160)}]
    item = {"type": "message", "role": "user", "content": content, "id": "large"}
    events = client.send_raw(json.dumps({"type": "conversation.item.create", "item": item}))
    assert {(event["type"], event["error"]["code"]) for event in events} == {("error", "event_too_large")}
    assert "large" in client.session.conversation, "it was done all the same"
    assert client.configure(instructions="short")["instructions"] == "short"


@pytest.mark.parametrize("depth", [20, 200, 600, 900, 2000, 100_000])
def test_what_is_nested_deeply_is_an_event_or_an_error(client: Client, depth: int):
    nested = "[" * depth + "]" * depth
    tool = f'{{"type":"function","name":"f","parameters":{{"x":{nested}}}}}'
    for field in (f'"x":{nested}', f'"tools":[{tool}]'):
        (event,) = client.send_raw('{"type":"session.update","session":{' + field + "}}")
        assert event["type"] in ("error", "session.updated")
    assert client.configure(instructions="it goes on")["instructions"] == "it goes on"


# Conversation


def test_items_are_created_retrieved_and_deleted(client: Client):
    added, done = client.send("conversation.item.create", item=MESSAGE)
    assert types([added, done]) == ["conversation.item.added", "conversation.item.done"]
    assert added["previous_item_id"] is None
    first = added["item"]["id"]
    added, _ = client.send("conversation.item.create", item={**MESSAGE, "id": "mine"})
    assert (added["item"]["id"], added["previous_item_id"]) == ("mine", first)
    (retrieved,) = client.send("conversation.item.retrieve", item_id="mine")
    assert retrieved["item"] == added["item"]
    (deleted,) = client.send("conversation.item.delete", item_id="mine")
    assert deleted["item_id"] == "mine"
    assert types(client.send("conversation.item.retrieve", item_id="mine")) == ["error"]


# The caller's turn


def test_a_turn_becomes_an_item_and_asks_for_a_response(client: Client):
    news = client.turn(1000.0)
    assert types(news) == [*TURN_EVENTS, "response.created", "rate_limits.updated"]
    started, stopped, committed, added, _ = news[:5]
    assert started["audio_start_ms"] == 100  # 400, less the padding of 300
    assert stopped["audio_end_ms"] == 1400
    assert started["item_id"] == stopped["item_id"] == committed["item_id"] == added["item"]["id"]
    assert added["item"]["content"] == [{"type": "input_audio", "transcript": None}]
    wanted = client.order(Transcribe)
    assert (wanted.item_id, wanted.start_ms, wanted.end_ms) == (added["item"]["id"], 100.0, 1400.0)
    assert [item.id for item in client.order(Generate).plan.items] == [added["item"]["id"]]


def test_a_session_may_want_turns_without_responses(client: Client):
    detection = {"type": "server_vad", "create_response": False}
    client.configure(audio={"input": {"turn_detection": detection}})
    assert types(client.turn()) == TURN_EVENTS


def test_words_are_told_only_to_who_asked_for_them_but_known_either_way(client: Client):
    item = client.turn()[0]["item_id"]
    client.session.transcribed(item, "hello", 1.0)
    assert client.take() == []
    (retrieved,) = client.send("conversation.item.retrieve", item_id=item)
    assert retrieved["item"]["content"][0]["transcript"] == "hello"
    client.configure(audio={"input": {"transcription": {"model": "whisper-1"}}})
    client.session.transcribed(item, "hello", 1.5)
    client.session.transcription_failed(item, "no recognizer")
    completed, failed = client.take()
    assert (completed["transcript"], completed["usage"]) == ("hello", {"type": "duration", "seconds": 1.5})
    assert failed["error"]["message"] == "no recognizer"


def test_push_to_talk_commits_what_was_heard_since_the_last_time(client: Client):
    client.configure(audio={"input": {"turn_detection": None}})
    assert client.order(DetectTurns).how is None
    client.session.heard(99.0)
    assert client.send("input_audio_buffer.commit")[0]["error"]["code"] == "input_audio_buffer_commit_empty"
    client.session.heard(901.0)
    client.session.speech_began(500.0, client.now)  # of a detector that was switched off: too late
    news = client.send("input_audio_buffer.commit")
    assert types(news) == TURN_EVENTS[2:]
    assert (client.order(Transcribe).start_ms, client.order(Transcribe).end_ms) == (0.0, 1000.0)
    client.session.heard(500.0)
    assert types(client.send("input_audio_buffer.clear")) == ["input_audio_buffer.cleared"]
    client.session.heard(200.0)
    client.send("input_audio_buffer.commit")
    assert (client.order(Transcribe).start_ms, client.order(Transcribe).end_ms) == (1500.0, 1700.0)
    assert types(client.send("response.create")) == ["response.created", "rate_limits.updated"]


def test_a_commit_of_more_than_is_kept_says_so(client: Client):
    client.configure(audio={"input": {"turn_detection": None}})
    client.session.heard(KEPT_SECONDS * 1000.0)
    assert types(client.send("input_audio_buffer.commit")) == TURN_EVENTS[2:]
    client.session.heard(KEPT_SECONDS * 1000.0 + 100)
    *news, error = client.send("input_audio_buffer.commit")
    assert types(news) == TURN_EVENTS[2:]
    assert error["error"]["code"] == "input_audio_buffer_overrun"
    assert error["error"]["event_id"].startswith("ours_")


def test_who_says_nothing_for_long_is_spoken_to(client: Client):
    detection = {"type": "server_vad", "idle_timeout_ms": 6000}
    client.configure(audio={"input": {"turn_detection": detection}})
    assert client.session.next_timeout() == float("inf"), "nobody has spoken yet"
    client.turn()
    response = client.response_id
    client.session.sound(response, 1000.0, client.now)
    client.session.completed(response, client.now)
    client.session.played_out(response, client.now + 1.0)
    client.take()
    client.now = client.session.next_timeout()
    assert client.now == pytest.approx(107.0)
    client.session.heard(6000.0)
    client.session.handle_timeout(client.now)
    news = client.take()
    assert types(news) == [
        "input_audio_buffer.timeout_triggered",
        *TURN_EVENTS[2:],
        "response.created",
        "rate_limits.updated",
    ]
    assert client.session.next_timeout() == float("inf")


# Responses


def test_a_spoken_response_in_all_its_events(client: Client):
    client.turn()
    response = client.response_id
    client.session.say(response, "Hello ")
    client.session.sound(response, 500.0, client.now)
    client.session.say(response, "there.")
    client.session.sound(response, 500.0, client.now)
    client.session.completed(response, client.now, Usage(total_tokens=3, input_tokens=1, output_tokens=2))
    news = client.take()
    assert types(news) == [
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_audio_transcript.delta",
        "output_audio_buffer.started",
        "response.output_audio_transcript.delta",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "response.output_item.done",
        "conversation.item.done",
        "response.done",
    ]
    assert news[0]["item"]["status"] == "in_progress"
    assert news[7]["transcript"] == "Hello there."
    body = news[-1]["response"]
    assert (body["status"], body["usage"]["total_tokens"]) == ("completed", 3)
    assert body["output"][0]["content"] == [{"type": "output_audio", "transcript": "Hello there."}]
    client.session.played_out(response, client.now)
    assert types(client.take()) == ["output_audio_buffer.stopped"]
    assert client.session._responses == {}


def test_a_written_response(client: Client):
    client.configure(output_modalities=["text"])
    client.send("response.create")
    response = client.response_id
    client.session.say(response, "Yes")
    client.session.sound(response, 500.0, client.now)  # nobody asked for it
    client.session.completed(response, client.now)
    assert types(client.take()) == [
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "conversation.item.done",
        "response.done",
    ]


def test_a_function_is_called_and_what_it_returned_leads_to_the_next_response(client: Client):
    client.configure(tools=[{"type": "function", "name": "light"}], output_modalities=["text"])
    client.send("response.create")
    response = client.response_id
    assert client.order(Generate).plan.tools[0].name == "light"
    client.session.say(response, "One moment.")
    call = client.session.call(response, "light")
    client.session.argue(response, '{"on":')
    client.session.argue(response, "true}")
    client.session.completed(response, client.now)
    news = client.take()
    assert types(news)[8:] == [
        "response.output_item.added",
        "conversation.item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "conversation.item.done",
        "response.done",
    ]
    done = news[-4]
    assert (done["name"], done["arguments"], done["call_id"]) == ("light", '{"on":true}', call)
    assert done["output_index"] == 1
    client.send("conversation.item.create", item={"type": "function_call_output", "call_id": call, "output": "ok"})
    client.send("response.create")
    assert [item.__class__.__name__ for item in client.order(Generate).plan.items] == [
        "Message",
        "FunctionCall",
        "FunctionCallOutput",
    ]


def test_one_response_at_a_time(client: Client):
    client.send("response.create")
    (refused,) = client.send("response.create")
    assert refused["error"]["code"] == "conversation_already_has_active_response"
    assert client.count(Generate) == 1
    client.session.completed(client.response_id, client.now)
    client.take()
    assert types(client.send("response.create"))[0] == "response.created"


def test_beside_it_responses_out_of_band_leave_no_trace_in_the_conversation(client: Client):
    client.configure(output_modalities=["text"])
    client.send("response.create")
    main = client.response_id
    created, _ = client.send(
        "response.create", response={"conversation": "none", "input": [MESSAGE], "metadata": {"topic": "sum"}}
    )
    aside = client.response_id
    assert created["response"]["conversation_id"] is None
    assert created["response"]["metadata"] == {"topic": "sum"}
    assert len(client.order(Generate).plan.items) == 1
    client.session.say(aside, "Short.")
    client.session.completed(aside, client.now)
    assert "conversation.item.added" not in types(client.take())
    client.session.completed(main, client.now)
    assert len(client.session.conversation) == 0


def test_not_any_number_of_them(client: Client):
    news = [client.send("response.create", response={"conversation": "none"}) for _ in range(5)]
    assert types(news[-1]) == ["error"]
    assert client.count(Generate) == 4


def test_a_client_cancels_what_is_being_said(client: Client):
    client.turn()
    response = client.response_id
    client.session.say(response, "A long story")
    client.session.sound(response, 1000.0, client.now)
    client.take()
    news = client.send("response.cancel")
    assert news[-1]["response"]["status"] == "cancelled"
    assert news[-1]["response"]["status_details"]["reason"] == "client_cancelled"
    assert client.order(StopModel).response_id == client.order(CutAudio).response_id == response
    assert types(client.send("output_audio_buffer.clear")) == [], "it is being cut already"
    client.session.was_cut(response, 400.0, client.now)
    truncated, cleared = client.take()
    assert (truncated["type"], truncated["audio_end_ms"]) == ("conversation.item.truncated", 400)
    assert (cleared["type"], cleared["response_id"]) == ("output_audio_buffer.cleared", response)
    (retrieved,) = client.send("conversation.item.retrieve", item_id=truncated["item_id"])
    assert retrieved["item"]["content"][0]["transcript"] == "A lo"
    client.session.say(response, "too late")
    client.session.sound(response, 100.0, client.now)
    client.session.completed(response, client.now)
    client.session.played_out(response, client.now)
    assert client.take() == []


def test_sound_that_is_cleared_while_the_model_goes_on_stays_away(client: Client):
    client.send("response.create")
    response = client.response_id
    client.session.say(response, "One, ")
    assert client.session.sound(response, 1000.0, client.now)
    client.take()
    client.send("output_audio_buffer.clear")
    client.session.was_cut(response, 300.0, client.now)
    assert types(client.take()) == ["conversation.item.truncated", "output_audio_buffer.cleared"]
    client.session.say(response, "two.")
    assert not client.session.sound(response, 1000.0, client.now)
    client.session.completed(response, client.now)
    assert client.take()[-1]["response"]["status"] == "completed"
    assert client.session._responses == {}
    assert types(client.send("response.create"))[0] == "response.created"


def test_a_clear_is_not_for_a_response_that_has_made_no_sound_yet(client: Client):
    client.send("response.create")
    response = client.response_id
    assert client.send("output_audio_buffer.clear") == []
    assert client.session.sound(response, 100.0, client.now)


def test_a_message_is_truncated_by_hand_once_nothing_is_added_to_it_any_more(client: Client):
    client.send("response.create")
    response = client.response_id
    client.session.say(response, "One. ")
    client.session.sound(response, 500.0, client.now)
    item = client.take()[0]["item"]["id"]
    assert types(client.send("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=0)) == ["error"]
    client.session.completed(response, client.now)
    client.take()
    news = client.send("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=0)
    assert types(news) == ["conversation.item.truncated"]


def test_after_a_cut_too_who_says_nothing_is_spoken_to(client: Client):
    client.configure(audio={"input": {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 5000}}})
    client.send("response.create")
    client.session.sound(client.response_id, 1000.0, client.now)
    client.send("response.cancel")
    client.session.was_cut(client.response_id, 100.0, client.now)
    assert client.session.next_timeout() == pytest.approx(client.now + 5.0)


def test_a_response_that_is_too_large_to_be_told_whole_is_done_all_the_same(client: Client):
    client.configure(output_modalities=["text"])
    client.send("response.create")
    for _ in range(30):
        client.session.say(client.response_id, "x" * 10_000)
    client.session.completed(client.response_id, client.now)
    done = client.take()[-1]
    assert (done["type"], done["response"]["status"], done["response"]["output"]) == ("response.done", "completed", [])


def test_speaking_over_a_response_ends_it(client: Client):
    client.turn()
    first = client.response_id
    client.session.say(first, "A long story")
    client.session.sound(first, 1000.0, client.now)
    client.take()
    client.session.heard(1000.0)
    client.session.speech_began(client.session._heard_ms, client.now)
    news = client.take()
    assert types(news)[0] == "input_audio_buffer.speech_started"
    assert news[-1]["response"]["status_details"]["reason"] == "turn_detected"
    assert client.order(CutAudio).response_id == first
    client.session.heard(500.0)
    client.session.speech_ended(client.session._heard_ms, client.now)
    assert "response.created" in types(client.take())
    assert client.response_id != first


def test_speaking_over_what_is_only_still_heard_cuts_it_too(client: Client):
    client.turn()
    first = client.response_id
    client.session.say(first, "Done.")
    client.session.sound(first, 3000.0, client.now)
    client.session.completed(first, client.now)
    client.take()
    client.session.heard(1000.0)
    client.session.speech_began(client.session._heard_ms, client.now)
    assert types(client.take()) == ["input_audio_buffer.speech_started"]
    assert client.order(CutAudio).response_id == first
    client.session.was_cut(first, 1000.0, client.now)
    assert types(client.take()) == ["conversation.item.truncated", "output_audio_buffer.cleared"]


def test_a_session_may_forbid_interruptions_and_the_next_response_waits(client: Client):
    detection = {"type": "server_vad", "interrupt_response": False}
    client.configure(audio={"input": {"turn_detection": detection}})
    client.turn()
    first = client.response_id
    client.session.sound(first, 3000.0, client.now)
    client.take()
    assert types(client.turn()) == TURN_EVENTS
    assert client.count(CutAudio) == 0
    client.session.completed(first, client.now)
    assert types(client.take())[-2:] == ["response.created", "rate_limits.updated"]
    assert client.response_id != first


def test_a_model_that_fails_fails_its_response_and_nothing_else(client: Client):
    client.turn()
    response = client.response_id
    client.session.say(response, "Well")
    client.take()
    client.session.failed(response, "the server is down", client.now)
    events = client.take()
    assert (types(events)[0], types(events)[-1]) == ("error", "response.done")
    told = {"type": "server_error", "code": "model_failed", "message": "the server is down"}
    assert events[0]["error"] == {**told, "param": None, "event_id": None}
    body = events[-1]["response"]
    assert body["status"] == "failed"
    assert told.items() <= body["status_details"]["error"].items()
    assert body["output"][0]["status"] == "incomplete"
    assert types(client.send("response.create"))[0] == "response.created"


def test_what_a_model_that_fails_had_said_is_heard_to_its_end_unless_somebody_interrupts(client: Client):
    for interrupted in (False, True):
        client.turn()
        response = client.response_id
        client.session.say(response, "Sorry.")
        client.session.sound(response, 900.0, client.now)
        client.session.failed(response, "the server is down", client.now)
        client.take()
        assert client.count(CutAudio) == 0
        if not interrupted:
            client.session.played_out(response, client.now)
            assert types(client.take()) == ["output_audio_buffer.stopped"]
    client.session.speech_began(client.session._heard_ms, client.now)
    client.take()
    assert client.order(CutAudio).response_id == response


def test_a_response_that_reached_its_limit_is_incomplete_and_heard_to_its_end(client: Client):
    client.send("response.create", response={"max_output_tokens": 5})
    response = client.response_id
    assert client.order(Generate).plan.max_output_tokens == 5
    client.session.sound(response, 100.0, client.now)
    client.session.cut_short(response, client.now)
    details = client.take()[-1]["response"]["status_details"]
    assert (details["type"], details["reason"]) == ("incomplete", "max_output_tokens")
    assert client.count(CutAudio) == 0
    client.session.played_out(response, client.now)
    assert types(client.take()) == ["output_audio_buffer.stopped"]


def test_a_response_has_the_voice_that_was_heard_first_and_no_other(client: Client):
    client.send("response.create", response={"audio": {"output": {"voice": "cedar"}}})
    client.session.sound(client.response_id, 20.0, client.now)
    client.session.completed(client.response_id, client.now)
    client.session.played_out(client.response_id, client.now)
    client.take()
    (refused,) = client.send("response.create", response={"audio": {"output": {"voice": "marin"}}})
    assert (refused["error"]["code"], refused["error"]["param"]) == (
        "cannot_update_voice",
        "response.audio.output.voice",
    )
    client.send("response.create", response={"audio": {"output": {"voice": "cedar"}}})
    client.session.completed(client.response_id, client.now)
    client.send("response.create")
    assert client.order(Generate).plan.voice == "cedar"
    assert client.count(Generate) == 3


def test_what_a_function_returned_belongs_to_a_call_that_there_was(client: Client):
    output = {"type": "function_call_output", "call_id": "call_none", "output": "ok"}
    (refused,) = client.send("conversation.item.create", item=output)
    assert (refused["error"]["code"], refused["error"]["param"]) == ("invalid_tool_call_id", "item.call_id")
    call = {"type": "function_call", "call_id": "call_none", "name": "f", "arguments": "{}"}
    client.send("conversation.item.create", item=call)
    assert types(client.send("conversation.item.create", item=output))[0] == "conversation.item.added"


def test_the_voice_cannot_change_once_it_was_heard(client: Client):
    client.send("response.create")
    client.session.sound(client.response_id, 100.0, client.now)
    client.take()
    (refused,) = client.send("session.update", session={"audio": {"output": {"voice": "cedar"}}})
    assert refused["error"]["code"] == "cannot_update_voice"

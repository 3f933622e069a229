"""The caller's turns, as a session sees them: since when they are looked for, how long a pause may be, what is guessed of them;
and when the model speaks without being asked."""

from __future__ import annotations

import random

import pytest
from realtime_client import Client, types

from agent.realtime.orders import DetectTurns, Forget, Generate, Listen, StopModel, Transcribe
from agent.realtime.session import RealtimeSession
from protocol.realtime.settings import SemanticVad, ServerVad

SEMANTIC = {"input": {"turn_detection": {"type": "semantic_vad"}, "transcription": {"model": "any"}}}


class Waiting(Client):
    """One whose session waits for it to say what it wants, until ten seconds have gone."""

    def __init__(self) -> None:
        super().__init__()
        self.session = RealtimeSession(entropy=random.Random(1).randbytes)
        self.orders.clear()
        self.session.start(self.now + 10.0)
        self.take()


@pytest.fixture
def waiting() -> Waiting:
    return Waiting()


@pytest.fixture
def semantic(client: Client) -> Client:
    client.configure(audio=SEMANTIC)
    client.session.heard(1000.0)
    client.session.speech_began(900.0, client.now)
    client.take()
    return client


def pause(client: Client, words: str | None = None) -> float:
    """The caller is silent; how much longer he may be, in seconds."""
    if words is not None:
        client.session.guessed(client.order(Listen).item_id, words, client.now)
    client.session.heard(300.0)
    client.session.speech_ended(client.session._heard_ms, client.now)
    client.take()
    return client.session.next_timeout() - client.now


def test_turns_are_looked_for_from_the_beginning_once_the_client_has_said_how(waiting: Waiting):
    assert waiting.count(DetectTurns) == 0
    waiting.session.heard(700.0)
    waiting.configure(audio=SEMANTIC)
    assert waiting.order(DetectTurns) == DetectTurns(SemanticVad(), 0.0, in_turn=False)
    assert waiting.count(DetectTurns) == 1


def test_a_client_that_says_nothing_has_the_usual_turns(waiting: Waiting):
    assert waiting.session.next_timeout() == waiting.now + 10.0
    waiting.session.settle_by(waiting.now + 1.0)
    waiting.now += 1.0
    waiting.session.handle_timeout(waiting.now)
    waiting.take()
    assert waiting.order(DetectTurns) == DetectTurns(ServerVad())
    waiting.session.settle_by(waiting.now + 5.0)
    assert waiting.session.next_timeout() > waiting.now + 5.0, "that is settled"


def test_audio_alone_settles_nothing_nor_does_what_cannot_be_read(waiting: Waiting):
    waiting.send("input_audio_buffer.append", audio="AAAA")
    waiting.send_raw("{")
    assert waiting.count(DetectTurns) == 0
    waiting.send("response.create")
    assert waiting.count(DetectTurns) == 1


def test_a_turn_that_has_begun_goes_on_when_the_client_wants_turns_found_another_way(client: Client):
    client.session.heard(2000.0)
    client.session.speech_began(1000.0, client.now)
    client.take()
    client.configure(audio=SEMANTIC)
    assert client.order(DetectTurns) == DetectTurns(SemanticVad(), 1000.0, in_turn=True)
    assert client.count(Forget) == 0
    client.configure(audio={"input": {"turn_detection": None}})
    assert client.order(Forget).item_id == client.order(Listen).item_id


def test_a_turn_is_listened_to_from_before_its_first_sound(client: Client):
    events = client.turn()
    listen, transcribe = client.order(Listen), client.order(Transcribe)
    assert listen.item_id == transcribe.item_id == events[0]["item_id"]
    assert listen.start_ms == transcribe.start_ms == 100.0  # 300 ms before


@pytest.mark.parametrize("what", ["input_audio_buffer.clear", "input_audio_buffer.commit"])
def test_a_turn_that_the_client_ends_is_forgotten(client: Client, what: str):
    client.session.heard(1000.0)
    client.session.speech_began(500.0, client.now)
    client.take()
    client.send(what)
    assert client.order(Forget).item_id == client.order(Listen).item_id
    if what.endswith("commit"):
        assert client.order(Transcribe).item_id != client.order(Listen).item_id
        assert (client.order(Transcribe).start_ms, client.order(Transcribe).end_ms) == (0.0, 1000.0)
    assert client.order(DetectTurns) == DetectTurns(ServerVad(), 1000.0, in_turn=False), "what is still said is a turn"


def test_what_was_cleared_before_turns_are_looked_for_is_none(waiting: Waiting):
    waiting.session.heard(700.0)
    waiting.send("input_audio_buffer.clear")
    assert waiting.order(DetectTurns) == DetectTurns(ServerVad(), 700.0)


def test_a_pause_is_as_long_as_what_was_said_suggests(semantic: Client):
    assert pause(semantic) == pytest.approx(0.4), "nobody knows"
    item_id = semantic.order(Listen).item_id
    semantic.session.guessed(item_id, "turn on the", semantic.now)
    assert semantic.session.next_timeout() - semantic.now == pytest.approx(3.7), (
        "a guess that comes late counts as well"
    )
    semantic.session.speech_began(1500.0, semantic.now)
    assert semantic.take() == [], "it is the same turn"
    assert pause(semantic, "turn on the light") == pytest.approx(0.2)
    semantic.now = semantic.session.next_timeout()
    semantic.session.handle_timeout(semantic.now)
    assert types(semantic.take())[:2] == ["input_audio_buffer.speech_stopped", "input_audio_buffer.committed"]
    assert semantic.count(Generate) == 1


def test_a_guess_that_shows_a_whole_sentence_ends_the_pause_that_has_lasted_long_enough(semantic: Client):
    pause(semantic, "what is the")
    semantic.now += 1.0
    semantic.session.guessed(semantic.order(Listen).item_id, "what is the time", semantic.now)
    assert "input_audio_buffer.speech_stopped" in types(semantic.take())


def test_eagerness_that_changes_in_a_pause_changes_the_pause(semantic: Client):
    assert pause(semantic, "and") == pytest.approx(3.7)
    semantic.configure(audio={"input": {"turn_detection": {"type": "semantic_vad", "eagerness": "low"}}})
    assert semantic.session.next_timeout() - semantic.now == pytest.approx(7.7)
    assert not semantic.order(DetectTurns).in_turn, "the detector is to tell when speech begins again"


def test_words_that_stay_are_told_as_they_come_and_the_transcript_has_the_last_word(client: Client):
    client.configure(audio={"input": {"transcription": {"model": "any"}}})
    client.turn()
    item_id = client.order(Transcribe).item_id
    for words in ("set", "set a time", "set a timer for", "set a timer for five"):
        client.session.guessed(item_id, words, client.now)
    client.session.transcribed(item_id, "set a timer for five minutes", 2.0)
    events = client.take()
    deltas = [event["delta"] for event in events if event["type"].endswith("delta")]
    assert deltas == ["set", " a", " timer for", " five minutes"]
    assert events[-1]["transcript"] == "".join(deltas)


def test_a_transcript_that_none_of_it_was_told_of_is_told_once(client: Client):
    client.configure(audio={"input": {"transcription": {"model": "any"}}})
    client.turn()
    client.session.transcribed(client.order(Transcribe).item_id, "hello", 1.0)
    assert types(client.take()) == ["conversation.item.input_audio_transcription.completed"]


# Speaking without being asked


def test_the_model_speaks_first_unless_somebody_has_begun(client: Client):
    client.session.speak_first(client.now)
    assert client.take()
    assert client.count(Generate) == 1
    client.session.completed(client.response_id, client.now)
    client.session.speak_first(client.now)
    assert client.count(Generate) == 1


@pytest.mark.parametrize("who", ["client", "caller", "writer"])
def test_the_model_is_silent_when_client_or_caller_begin(client: Client, who: str):
    if who == "client":
        client.send("response.create")
    elif who == "caller":
        client.session.heard(500.0)
        client.session.speech_began(200.0, client.now)
    else:
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
        client.send("conversation.item.create", item=item)
    client.take()
    before = client.count(Generate)
    client.session.speak_first(client.now)
    client.take()
    assert client.count(Generate) == before


def test_a_client_that_asks_for_a_response_while_the_model_begins_to_greet_gets_its_own(client: Client):
    client.session.speak_first(client.now)
    client.take()
    greeting = client.response_id
    events = client.send("response.create")
    assert types(events)[0] == "response.done"
    assert events[0]["response"]["status_details"]["reason"] == "client_cancelled"
    assert client.order(StopModel).response_id == greeting
    assert client.response_id != greeting


def test_the_model_speaks_up_when_nobody_speaks(client: Client):
    client.session.heard(500.0)
    client.session.speech_began(200.0, client.now)
    client.session.speak_up(client.now)
    client.take()
    assert client.count(Generate) == 0
    client.session.heard(500.0)
    client.session.speech_ended(1000.0, client.now)
    client.take()
    assert client.count(Generate) == 1, "the answer to the turn can say it"
    client.session.speak_up(client.now)
    client.take()
    assert client.count(Generate) == 1
    client.session.completed(client.response_id, client.now)
    client.take()
    assert client.count(Generate) == 2
    client.session.completed(client.response_id, client.now)
    client.take()
    assert client.count(Generate) == 2


def test_a_response_that_cannot_be_leaves_the_greeting_alone(client: Client):
    client.session.speak_first(client.now)
    client.take()
    (refused,) = client.send("response.create", response={"input": [{"type": "item_reference", "id": "none"}]})
    assert refused["error"]["param"] == "response.input[0].id"
    assert client.count(StopModel) == 0


def test_what_waited_for_a_turn_that_is_dropped_is_said_then(client: Client):
    client.session.heard(500.0)
    client.session.speech_began(200.0, client.now)
    client.session.speak_up(client.now)
    client.take()
    client.send("input_audio_buffer.clear")
    assert client.count(Generate) == 1

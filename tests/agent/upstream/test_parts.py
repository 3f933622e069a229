"""The small parts of a bridge: its tables, what it remembers, what it asks of the service, where that is."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agent.agents.upstream import make_upstream
from agent.config import AgentConfig
from agent.upstream import tables
from agent.upstream.config import Access, AccessError, UpstreamConfig, find_access
from agent.upstream.events import decode_service_event_untrusted
from agent.upstream.memory import MAX_ITEM_BYTES, MAX_ITEMS, MAX_LETTERS, Memory
from agent.upstream.settings import ClientSettings, interrupts
from agent.upstream.sound import Backlog, Sound, Timeline
from agent.upstream.tables import Contact, Effect, Outage
from protocol.fsm import IllegalTransition
from service.config import ConfigError, load

# Tables

EVENTS = tuple(event for region in tables.CONTACT_REGIONS for event in region.events)


def test_whatever_happens_to_a_contact_the_call_is_ended_once_and_what_is_lost_is_settled():
    for path in itertools.product(EVENTS, repeat=6):
        machine = tables.new_contact_machine()
        effects: list[Any] = []
        greeted = 0
        for event in path:
            try:
                news = machine.fire(event())
            except IllegalTransition:
                break
            effects += news
            greeted += Effect.RESTORE in news
        contact, outage = machine.state(Contact), machine.state(Outage)
        assert effects.count(Effect.END_CALL) == (contact is Contact.GONE)
        assert effects.count(Effect.SETTLE) == greeted - (contact in (Contact.PROVING, Contact.OPEN))
        assert outage is not Outage.NONE or contact in (Contact.CONNECTING, Contact.PROVING, Contact.OPEN)
        assert contact is not Contact.OPEN or outage is Outage.NONE


def test_each_state_that_waits_has_a_deadline():
    waiting = {Contact.CONNECTING, Contact.PROVING, Contact.WAITING}
    assert set(tables.CONTACT.deadlines) == waiting
    assert set(tables.OUTAGE.deadlines) == {Outage.RUNNING}


# What was heard


def sound(item: str = "i", milliseconds: int = 1000) -> Sound:
    return Sound("r", item, 0, 1, received_bytes=48 * milliseconds)


def test_a_timeline_knows_what_was_heard_of_each_sound():
    first, second = sound("a"), sound("b")
    timeline = Timeline()
    for number in range(50):
        timeline.place(first, number * 20.0, 20.0)
    for number in range(50, 100):
        timeline.place(second, number * 20.0, 20.0)
    timeline.play_to(400.0)
    assert (first.heard_ms, second.heard_ms) == (400.0, 0.0)
    timeline.cut(1300.0)
    assert (first.heard_ms, second.heard_ms) == (1000.0, 300.0)
    assert not timeline.holds("r")


def test_a_position_that_goes_back_changes_nothing():
    timeline, only = Timeline(), sound()
    timeline.place(only, 100.0, 500.0)
    for position in (50.0, 300.0, 200.0, 300.0):
        timeline.play_to(position)
    assert only.heard_ms == 200.0


def test_a_backlog_counts_tiny_pieces_as_what_they_cost():
    backlog = Backlog(100_000)
    for _ in range(1000):
        backlog.put(sound(), b"\0\0")
    assert backlog.is_full
    while backlog.take() is not None:
        pass
    assert not backlog.is_full


# What is remembered


def item_event(kind: str = "conversation.item.done", previous: str | None = None, **item: Any) -> Any:  # noqa: ANN401
    event = {"type": kind, "event_id": "e", "item": item, "previous_item_id": previous}
    return decode_service_event_untrusted(json.dumps(event))


def message(number: int, text: str = "words") -> dict[str, Any]:
    content = [{"type": "input_text", "text": text}]
    return {"id": f"item_{number}", "type": "message", "role": "user", "content": content}


def ids(memory: Memory) -> list[str]:
    return [item["id"] for item in memory.items()]


def test_items_keep_the_order_of_the_conversation():
    memory = Memory(Counter())
    memory.note(item_event(**message(1)))
    memory.note(item_event(previous="item_1", **message(2)))
    memory.note(item_event(previous="item_1", **message(3)))
    memory.note(item_event(previous="root", **message(4)))
    assert ids(memory) == ["item_4", "item_1", "item_3", "item_2"]
    memory.delete("item_3")
    assert ids(memory) == ["item_4", "item_1", "item_2"]


def test_what_is_remembered_is_bounded():
    drops: Counter[str] = Counter()
    memory = Memory(drops)
    for number in range(2 * MAX_ITEMS):
        memory.note(item_event(**message(number)))
    assert ids(memory)[0] == f"item_{MAX_ITEMS}"
    for number in range(100):
        memory.note(item_event(**message(number, "x" * 5000)))
    assert sum(len(item["content"][0]["text"]) for item in memory.items()) <= MAX_LETTERS
    assert drops["item_forgotten"] > MAX_ITEMS


def test_an_item_that_is_too_large_is_forgotten():
    drops: Counter[str] = Counter()
    memory = Memory(drops)
    memory.note(item_event(**message(1)))
    memory.note(item_event(**message(2)))
    memory.note(item_event(**message(2, "x" * MAX_ITEM_BYTES)))
    memory.note(item_event(**message(3, "x" * MAX_ITEM_BYTES)))
    assert (ids(memory), drops["item_forgotten"]) == (["item_1"], 2)


def test_of_an_item_with_many_parts_the_first_are_remembered_and_each_costs():
    drops: Counter[str] = Counter()
    memory = Memory(drops)
    for number in range(MAX_ITEMS):
        parts = [{"type": "input_text", "text": str(part)} for part in range(1000)]
        memory.note(item_event(**(message(number) | {"content": parts})))
    (last,) = memory.items()[-1]["content"]
    assert last["text"] == "\n".join(map(str, range(64)))
    assert len(memory.items()) <= MAX_LETTERS / (64 * 64)
    assert drops["item_forgotten"] == MAX_ITEMS - len(memory.items())


def test_what_the_caller_said_is_remembered_as_its_transcript_whenever_that_comes():
    memory = Memory(Counter())
    spoken = {"id": "u", "type": "message", "role": "user", "content": [{"type": "input_audio", "transcript": None}]}
    memory.note(item_event(**spoken))
    assert ids(memory) == []
    kind = "conversation.item.input_audio_transcription.completed"
    event = {"type": kind, "event_id": "e", "item_id": "u", "content_index": 0, "transcript": "good day"}
    memory.note_transcript(decode_service_event_untrusted(json.dumps(event)))
    memory.note(item_event(**spoken))
    [item] = memory.items()
    assert item["content"] == [{"type": "input_text", "text": "good day"}]


@pytest.mark.parametrize(
    ("share", "words"), [(1.0, "one two three"), (0.6, "one two"), (0.55, "one two"), (0.5, "one"), (0.0, "")]
)
def test_a_message_is_cut_between_words(share: float, words: str):
    memory = Memory(Counter())
    content = [{"type": "output_audio", "transcript": "one two three"}]
    memory.note(item_event(id="a", type="message", role="assistant", content=content))
    memory.note_heard("a", share)
    assert [item["content"][0]["text"] for item in memory.items()] == [words] * bool(words)


def test_an_item_that_is_only_a_responses_is_not_the_conversations():
    memory = Memory(Counter())
    memory.note(item_event("response.output_item.done", **message(1)), may_be_new=False)
    assert ids(memory) == []


# What is asked of the service


def test_updates_add_up_and_another_kind_of_turn_detection_replaces_the_first():
    wishes = ClientSettings({"type": "realtime", "instructions": "a"}, Counter())
    updates: list[dict[str, Any]] = [
        {
            "audio": {
                "input": {"turn_detection": {"type": "server_vad", "threshold": 0.4}},
                "output": {"voice": "cedar"},
            }
        },
        {"audio": {"input": {"turn_detection": {"type": "semantic_vad"}}}, "instructions": "b", "tools": []},
    ]
    for number, update in enumerate(updates):
        wishes.told(str(number), "", update)
        wishes.accepted()
    assert wishes.for_new_session() == {
        "type": "realtime",
        "instructions": "b",
        "tools": [],
        "audio": {"input": {"turn_detection": {"type": "semantic_vad"}}, "output": {"voice": "cedar"}},
    }


def test_an_update_that_was_refused_is_not_told_again():
    wishes = ClientSettings(None, Counter())
    wishes.told("bad", "", {"instructions": 5})
    wishes.told("good", "", {"instructions": "b"})
    wishes.refused("bad")
    wishes.accepted()
    assert wishes.for_new_session() == {"instructions": "b"}


def test_what_is_asked_is_remembered_up_to_a_bound():
    drops: Counter[str] = Counter()
    wishes = ClientSettings({"instructions": "a"}, drops)
    for number in range(10):
        wishes.told(str(number), "", {f"key{number}": "x" * 100_000})
        wishes.accepted()
    assert drops["update_forgotten"] == 8
    assert len(json.dumps(wishes.for_new_session())) < 256 * 1024


@pytest.mark.parametrize(
    ("session", "expected"),
    [
        ({}, True),
        ({"audio": {"input": {"turn_detection": None}}}, True),
        ({"audio": {"input": {"turn_detection": {"type": "server_vad"}}}}, True),
        ({"audio": {"input": {"turn_detection": {"interrupt_response": False}}}}, False),
        ({"turn_detection": {"interrupt_response": False}}, False),
        ({"audio": [], "turn_detection": 5}, True),
    ],
)
def test_a_session_says_whether_callers_interrupt(session: dict[str, Any], expected: bool):
    assert interrupts(session) is expected


# Where the service is


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"url": "https://host/v1"}, "agent.upstream.url: must be like wss://host"),
        ({"url": "wss://"}, "agent.upstream.url: must be like wss://host"),
        ({"url": "wss://host:0/"}, "agent.upstream.url: must be like wss://host"),
        ({"url": "wss://host:99999/"}, "agent.upstream.url: is none"),
        ({"url": "wss://me:secret@host/"}, "agent.upstream.url: must not hold a password"),
        ({"url": "wss://host/a b"}, "agent.upstream.url: must have no fragment, no spaces"),
        ({"url": "wss://host/#x"}, "agent.upstream.url: must have no fragment"),
        (
            {"url": "wss://host/", "key_file": "a", "key_variable": "B"},
            "agent.upstream.key_file: there is a key_variable",
        ),
        ({"url": "wss://host/", "connect_seconds": 0}, "agent.upstream.connect_seconds: must be between"),
        ({"url": "wss://host/", "max_event_bytes": 5}, "agent.upstream.max_event_bytes: must be between"),
        ({"urls": "wss://host/"}, "agent.upstream.urls: unknown key; did you mean url?"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_in_one_line(tmp_path: Path, values: dict[str, Any], says: str):
    file = tmp_path / "antiphon.toml"
    file.write_text("[agent.upstream]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()))
    with pytest.raises(ConfigError) as refused:
        load({"agent": AgentConfig}, file, {})
    assert str(refused.value).startswith(says)
    assert "secret" not in str(refused.value)


def test_the_environment_configures_it_too():
    environ = {"ANTIPHON_AGENT_UPSTREAM_URL": "wss://host/v1", "ANTIPHON_AGENT_UPSTREAM_MAX_EVENT_BYTES": "100000"}
    config = load({"agent": AgentConfig}, None, environ)[AgentConfig].upstream
    assert (config.url, config.max_event_bytes) == ("wss://host/v1", 100_000)


@pytest.mark.parametrize(
    ("values", "key", "says"),
    [
        ({}, "url", "must name the service"),
        ({"url": "wss://host/", "key_variable": "NOT_THERE"}, "key_variable", "the environment has no NOT_THERE"),
        ({"url": "wss://host/", "key_variable": "TWO_WORDS"}, "key_variable", "is no key"),
        ({"url": "wss://host/", "key_file": "/not/there"}, "key_file", "/not/there: No such file"),
        ({"url": "ws://host/", "key_variable": "KEY"}, "url", "must begin with wss://"),
    ],
)
def test_an_access_that_cannot_be_is_refused_at_the_start(values: dict[str, Any], key: str, says: str):
    with pytest.raises(AccessError, match=says) as refused:
        make_upstream(UpstreamConfig(**values), {"KEY": "sk-1", "TWO_WORDS": "a b"})
    assert refused.value.key == key


def test_a_key_comes_from_a_file(tmp_path: Path):
    file = tmp_path / "key"
    file.write_text("sk-1\n")
    access = find_access(UpstreamConfig(url="wss://host/v1?x=1", model="m/1", key_file=str(file)), {})
    assert access.headers == ((b"Authorization", b"Bearer sk-1"),)
    assert (access.name, access.port, access.host, access.tls) == ("host", 443, "host", True)
    assert access.target == "/v1?x=1&model=m%2F1"
    file.write_text("")
    with pytest.raises(AccessError, match="is empty"):
        find_access(UpstreamConfig(url="wss://host/", key_file=str(file)), {})


def test_a_model_in_the_url_stays():
    assert Access("ws://[::1]:8000?model=a", "b", "").target == "/?model=a"
    assert Access("ws://[::1]:8000?model=a", "b", "").host == "[::1]:8000"

"""Whatever a client sends is an event or an ApiError that says which field is to blame."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.realtime import RealtimeClientEvent
from pydantic import TypeAdapter

from agent.realtime.client_events import (
    MAX_EVENT_BYTES,
    decode_client_event_untrusted,
    event_id_of_untrusted,
)
from protocol.realtime.errors import ApiError, Code

OFFICIAL: TypeAdapter[Any] = TypeAdapter(RealtimeClientEvent)

MESSAGE = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
GOOD: list[dict[str, Any]] = [
    {"type": "session.update", "session": {"type": "realtime", "instructions": "x"}},
    {"type": "input_audio_buffer.append", "audio": "AAAA"},
    {"type": "input_audio_buffer.commit", "event_id": "e1"},
    {"type": "input_audio_buffer.clear"},
    {"type": "conversation.item.create", "item": MESSAGE, "previous_item_id": "root"},
    {"type": "conversation.item.create", "item": {"type": "function_call_output", "call_id": "c", "output": "{}"}},
    {
        "type": "conversation.item.create",
        "item": {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "yes"}]},
    },
    {"type": "conversation.item.retrieve", "item_id": "item_1"},
    {"type": "conversation.item.truncate", "item_id": "item_1", "content_index": 0, "audio_end_ms": 1200},
    {"type": "conversation.item.delete", "item_id": "item_1"},
    {"type": "response.create"},
    {"type": "response.create", "event_id": "agents_js_response_create_1", "response": {"instructions": "Greet."}},
    {"type": "response.create", "response": {"conversation": "none", "input": [MESSAGE], "metadata": {"topic": "x"}}},
    {"type": "response.cancel"},
    {"type": "response.cancel", "response_id": "resp_1"},
    {"type": "output_audio_buffer.clear"},
]


@pytest.mark.parametrize("event", GOOD, ids=lambda event: event["type"])
def test_events_of_the_api_are_read(event: dict[str, Any]):
    OFFICIAL.validate_python(event)
    read = decode_client_event_untrusted(json.dumps(event))
    assert read.event_id == event.get("event_id")
    assert decode_client_event_untrusted(json.dumps(event).encode()) == read


@pytest.mark.parametrize(
    ("data", "code", "param"),
    [
        ("{", Code.INVALID_JSON, None),
        ("[]", Code.INVALID_JSON, None),
        (b"\xff\xfe", Code.INVALID_JSON, None),
        ("[" * 100_000, Code.INVALID_JSON, None),
        ("{}", Code.MISSING_PARAMETER, "type"),
        ('{"type":"nope"}', Code.INVALID_VALUE, "type"),
        ('{"type":7}', Code.INVALID_VALUE, "type"),
        ('{"type":"session.update"}', Code.MISSING_PARAMETER, "session"),
        ('{"type":"session.update","session":[]}', Code.INVALID_TYPE, "session"),
        ('{"type":"conversation.item.create","item":{"type":"mcp_call"}}', Code.INVALID_VALUE, "item.type"),
        ('{"type":"conversation.item.delete","item_id":""}', Code.INVALID_VALUE, "item_id"),
        (
            '{"type":"conversation.item.truncate","item_id":"a","content_index":0,"audio_end_ms":-1}',
            Code.INVALID_VALUE,
            "audio_end_ms",
        ),
        (
            '{"type":"conversation.item.create","item":{"type":"message","role":"system",'
            '"content":[{"type":"input_text","text":"a"},{"type":"input_audio"}]}}',
            Code.INVALID_VALUE,
            "item.content[1].type",
        ),
        (
            '{"type":"conversation.item.create","item":{"type":"message","role":"user",'
            '"content":[{"type":"input_audio","audio":"AAA"}]}}',
            Code.INVALID_VALUE,
            "item.content[0].audio",
        ),
        (
            '{"type":"response.create","response":{"input":[{"type":"item_reference","id":"a"},'
            '{"type":"message","role":"user","content":[{"type":"output_text","text":"a"}]}]}}',
            Code.INVALID_VALUE,
            "response.input[1].content[0].type",
        ),
        (
            '{"type":"response.create","response":{"input":[{"type":"message","role":"user",'
            '"content":[{"type":"input_audio","audio":"é"}]}]}}',
            Code.INVALID_VALUE,
            "response.input[0].content[0].audio",
        ),
        (
            '{"type":"response.create","response":{"max_output_tokens":0}}',
            Code.INVALID_VALUE,
            "response.max_output_tokens",
        ),
    ],
)
def test_what_is_no_event_is_refused_with_the_path_of_the_field(data: str | bytes, code: Code, param: str | None):
    with pytest.raises(ApiError) as refused:
        decode_client_event_untrusted(data)
    assert (refused.value.code, refused.value.param) == (code, param)
    assert refused.value.message


def test_an_event_may_be_so_large_and_no_larger():
    def event(size: int, letter: str = "x") -> str:
        return json.dumps({"type": "session.update", "session": {"instructions": letter * size}}, ensure_ascii=False)

    overhead = len(event(0))
    decode_client_event_untrusted(event(MAX_EVENT_BYTES - overhead))
    for large in (event(MAX_EVENT_BYTES - overhead + 1), event((MAX_EVENT_BYTES - overhead) // 2 + 1, "ü")):
        with pytest.raises(ApiError) as refused:
            decode_client_event_untrusted(large)
        assert refused.value.code is Code.TOO_LARGE


def test_the_name_that_a_client_gave_a_wrong_event_is_found():
    assert event_id_of_untrusted('{"type":"nope","event_id":"mine"}') == "mine"
    for nameless in ("{", "[]", '{"event_id":5}', '{"event_id":"' + "x" * 600 + '"}', b"\xff"):
        assert event_id_of_untrusted(nameless) is None


LETTERS = 'abc {}[]":,\\\0é☃𝄞'  # all of Unicode takes seconds to prepare
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(LETTERS, max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(LETTERS, max_size=12), inner, max_size=4),
    max_leaves=12,
)
FIELDS = sorted({name for event in GOOD for name in event} | {"role", "content", "call_id", "input", "tools"})


@given(st.binary(max_size=200) | st.text(LETTERS, max_size=200))
def test_any_bytes_are_an_event_or_an_error(data: bytes | str):
    with pytest.raises(ApiError):
        decode_client_event_untrusted(data)
    event_id_of_untrusted(data)


@given(st.sampled_from([event["type"] for event in GOOD]), st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=5))
def test_any_fields_make_an_event_or_an_error(kind: str, fields: dict[str, Any]):
    try:
        decode_client_event_untrusted(json.dumps({**fields, "type": kind}))
    except ApiError as error:
        assert error.code in (Code.INVALID_VALUE, Code.INVALID_TYPE, Code.MISSING_PARAMETER)
        assert error.param

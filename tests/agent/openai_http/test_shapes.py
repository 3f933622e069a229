"""What servers send as JSON: lenient to what is not used, strict with what is."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai_server import chunk, usage

from agent.openai_http.shapes import decode_chunk_untrusted, decode_transcription_untrusted, error_text_untrusted
from protocol.errors import DecodeError

NAMES = st.sampled_from(
    [
        "choices",
        "delta",
        "content",
        "tool_calls",
        "index",
        "id",
        "function",
        "name",
        "arguments",
        "usage",
        "error",
        "finish_reason",
        "text",
        "message",
        "detail",
        "prompt_tokens",
        "prompt_tokens_details",
        "cached_tokens",
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.slow
@given(VALUES)
def test_any_json_is_a_result_or_refused(value: object):
    text = json.dumps(value)
    assert isinstance(error_text_untrusted(text.encode()), str)
    with suppress(DecodeError):
        decode_chunk_untrusted(text)
    with suppress(DecodeError):
        assert isinstance(decode_transcription_untrusted(text.encode()), str)


def test_depth_is_no_way_to_break_a_reader():
    deep = '{"a":' * 100_000 + "1" + "}" * 100_000
    assert error_text_untrusted(deep.encode()) == ""
    for text in (deep, f'{{"choices": [], "unknown": {deep}}}'):
        with suppress(DecodeError):
            decode_chunk_untrusted(text)


def test_fields_that_we_do_not_know_are_passed_over():
    known = json.loads(chunk({"content": "Hi"}, "stop", usage=usage(3, 1)))
    known["x_groq"] = {"id": "req"}
    known["choices"][0]["delta"]["reasoning"] = [1, {"a": None}]
    read = decode_chunk_untrusted(json.dumps(known))
    assert read.choices is not None
    assert read.choices[0].delta is not None
    assert (read.choices[0].delta.content, read.choices[0].finish_reason) == ("Hi", "stop")
    assert read.usage is not None
    assert read.usage.total_tokens == 4
    assert decode_transcription_untrusted(b'{"text": " hello ", "segments": [1]}') == "hello"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"error": {"message": "no", "type": "x", "code": None}}, "no"),  # OpenAI
        ({"object": "error", "message": "no", "code": 400}, "no"),  # vLLM
        ({"error": "no"}, "no"),  # Ollama
        ({"detail": "no"}, "no"),  # FastAPI
        ({"detail": [{"loc": ["body", "model"], "msg": "no"}]}, "no"),
        ({"error": {"code": 5}}, ""),
        ({"error": {"message": {"a": 1}}}, ""),
        (["no"], "no"),
        ([], ""),
        (7, ""),
    ],
)
def test_what_is_wrong_is_found_wherever_servers_say_it(body: object, text: str):
    assert error_text_untrusted(json.dumps(body).encode()) == text

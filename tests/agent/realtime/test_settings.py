"""`session.update`: what changes, what stays, what is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agent.realtime.errors import ApiError, Code
from agent.realtime.settings import SemanticVad, ServerVad, Settings, update_settings


def changed(*changes: dict[str, Any], voice_is_fixed: bool = False) -> Settings:
    settings = Settings()
    for change in changes:
        settings = update_settings(settings, change, voice_is_fixed=voice_is_fixed)
    return settings


def test_the_defaults_are_the_documented_ones():
    settings = Settings()
    assert settings.audio.input.turn_detection == ServerVad(
        threshold=0.5,
        prefix_padding_ms=300,
        silence_duration_ms=500,
        idle_timeout_ms=None,
        create_response=True,
        interrupt_response=True,
    )
    assert settings.speaks
    assert settings.max_output_tokens == "inf"
    assert msgspec.to_builtins(settings)["audio"]["output"]["format"] == {"type": "audio/pcm", "rate": 24000}


def test_an_update_leaves_alone_what_it_does_not_name():
    settings = changed(
        {"instructions": "Be kind.", "audio": {"output": {"voice": "cedar"}}},
        {"audio": {"input": {"turn_detection": {"type": "semantic_vad", "eagerness": "high"}}}},
        {"audio": {"output": {"speed": 1.2}}},
    )
    assert settings.instructions == "Be kind."
    assert (settings.audio.output.voice, settings.audio.output.speed) == ("cedar", 1.2)
    assert settings.audio.input.turn_detection == SemanticVad(eagerness="high")


def test_turn_detection_is_replaced_whole_and_null_switches_it_off():
    first = {"audio": {"input": {"turn_detection": {"type": "server_vad", "threshold": 0.9}}}}
    second = {"audio": {"input": {"turn_detection": {"type": "server_vad", "silence_duration_ms": 200}}}}
    assert changed(first, second).audio.input.turn_detection == ServerVad(silence_duration_ms=200)
    assert changed(first, {"audio": {"input": {"turn_detection": None}}}).audio.input.turn_detection is None


def test_null_is_back_to_the_default_where_nothing_else_is_meant():
    settings = changed(
        {"instructions": "x", "tools": [{"type": "function", "name": "f"}]}, {"instructions": None, "tools": None}
    )
    assert (settings.instructions, settings.tools) == ("", [])
    assert changed({"audio": {"output": {"voice": "cedar"}}}, {"audio": {"output": None}}) == Settings()


def test_fields_that_we_do_not_know_are_passed_over():
    assert changed({"reasoning": {"effort": "low"}, "parallel_tool_calls": True}) == Settings()


def test_what_the_agents_sdk_sends_is_understood():
    sdk = {
        "type": "realtime",
        "instructions": "You are a helpful assistant.",
        "model": "gpt-realtime",
        "output_modalities": ["audio"],
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "noise_reduction": None,
                "transcription": {"model": "gpt-4o-mini-transcribe"},
                "turn_detection": {"type": "semantic_vad"},
            },
            "output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "marin", "speed": 1},
        },
        "tool_choice": "auto",
        "tools": [
            {
                "type": "function",
                "name": "get_weather",
                "description": "",
                "strict": True,
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
            }
        ],
        "tracing": "auto",
    }
    settings = changed(sdk, {"type": "realtime", "tracing": "auto"})
    assert settings.tools[0].name == "get_weather"
    assert settings.audio.input.transcription is not None
    assert settings.tracing == "auto"


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"instructions": 4}, Code.INVALID_TYPE, "session.instructions"),
        ({"audio": 3}, Code.INVALID_TYPE, "session.audio"),
        ({"audio": {"input": 3}}, Code.INVALID_TYPE, "session.audio.input"),
        ({"audio": {"output": {"speed": 9}}}, Code.INVALID_VALUE, "session.audio.output.speed"),
        ({"output_modalities": ["audio", "text"]}, Code.INVALID_VALUE, "session.output_modalities"),
        ({"output_modalities": []}, Code.INVALID_VALUE, "session.output_modalities"),
        ({"max_output_tokens": 5000}, Code.INVALID_VALUE, "session.max_output_tokens"),
        ({"tools": [{"type": "function"}]}, Code.MISSING_PARAMETER, "session.tools[0].name"),
        ({"tools": [{"type": "mcp", "server_label": "x"}]}, Code.UNSUPPORTED, "session.tools[0].type"),
        ({"type": "transcription"}, Code.UNSUPPORTED, "session.type"),
        (
            {"audio": {"input": {"turn_detection": {"type": "server_vad", "threshold": 2}}}},
            Code.INVALID_VALUE,
            "session.audio.input.turn_detection.threshold",
        ),
        (
            {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 16000}}}},
            Code.INVALID_VALUE,
            "session.audio.input.format.rate",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_its_path(change: dict[str, Any], code: Code, param: str):
    with pytest.raises(ApiError) as refused:
        changed(change)
    assert (refused.value.code, refused.value.param) == (code, param)


def test_the_voice_is_fixed_once_it_was_heard():
    with pytest.raises(ApiError) as refused:
        changed({"audio": {"output": {"voice": "cedar"}}}, voice_is_fixed=True)
    assert refused.value.code is Code.VOICE_FIXED
    assert (
        changed({"audio": {"output": {"voice": "alloy"}}, "instructions": "x"}, voice_is_fixed=True).instructions == "x"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"instructions": "é" * 33_000},
        {"prompt": {"a": [[]] * 2000}},
        {"prompt": {str(number): 0 for number in range(10_000)}},
        {"tracing": {"a": [{}] * 80_000}},
        {"tools": [{"type": "function", "name": "f", "parameters": {"a": ["x"] * 900}}] * 128},
    ],
)
def test_settings_that_every_later_update_would_pay_for_are_refused(change: dict[str, Any]):
    with pytest.raises(ApiError) as refused:
        changed(change)
    assert (refused.value.code, refused.value.param) == (Code.TOO_LARGE, "session")


def test_several_updates_together_are_held_to_the_same_bound():
    first = {"instructions": "x" * 40_000}
    with pytest.raises(ApiError):
        changed(first, {"tracing": {"a": "x" * 40_000}})
    with pytest.raises(ApiError):
        changed({"prompt": {"a": [[]] * 1200}}, {"tracing": {"a": [[]] * 1200}})
    assert changed(first, {"instructions": None}, {"tracing": {"a": "x" * 40_000}}).instructions == ""


def test_what_is_nested_without_end_is_refused():
    deep: list[Any] = []
    for _ in range(3000):
        deep = [deep]
    with pytest.raises(ApiError):
        changed({"prompt": {"a": deep}})

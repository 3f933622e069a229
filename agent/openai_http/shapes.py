"""The JSON that servers of the OpenAI API send, as far as it is used; other fields are passed over.

Nothing but what is needed is required: the servers that speak this API leave out one field or another.
"""

from __future__ import annotations

from typing import Any

import msgspec

from protocol.errors import DecodeError

__all__ = [
    "ChatChunk",
    "Choice",
    "CompletionUsage",
    "Delta",
    "FunctionDelta",
    "PromptDetails",
    "ToolCallDelta",
    "decode_chunk_untrusted",
    "decode_transcription_untrusted",
    "error_text_untrusted",
]


class FunctionDelta(msgspec.Struct, frozen=True):
    name: str | None = None
    arguments: str | None = None


class ToolCallDelta(msgspec.Struct, frozen=True):
    index: int | None = None
    id: str | None = None
    function: FunctionDelta | None = None


class Delta(msgspec.Struct, frozen=True):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCallDelta] | None = None


class Choice(msgspec.Struct, frozen=True):
    delta: Delta | None = None
    finish_reason: str | None = None


class PromptDetails(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None
    audio_tokens: int | None = None


class CompletionUsage(msgspec.Struct, frozen=True):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None


class ChatChunk(msgspec.Struct, frozen=True):
    """`error`: in place of everything else, by servers that fail when the answer has begun."""

    choices: list[Choice] | None = None
    usage: CompletionUsage | None = None
    error: Any = None


class _Transcription(msgspec.Struct, frozen=True):
    text: str


_CHUNK = msgspec.json.Decoder(ChatChunk)
_TRANSCRIPTION = msgspec.json.Decoder(_Transcription)
_ANYTHING = msgspec.json.Decoder()

_TEXT_AT = ("error", "message", "detail", "msg")  # OpenAI, vLLM, Ollama; FastAPI, whose `detail` may be a list
_TEXT_DEPTH = 4


def decode_chunk_untrusted(data: str) -> ChatChunk:
    """One piece of a streamed chat completion. Raises DecodeError."""
    try:
        return _CHUNK.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        raise DecodeError("not_a_chat_completion") from None


def decode_transcription_untrusted(data: bytes) -> str:
    """The words of a transcription. Raises DecodeError."""
    try:
        return _TRANSCRIPTION.decode(data).text.strip()
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        raise DecodeError("not_a_transcription") from None


def error_text_untrusted(data: bytes) -> str:
    """What a server says is wrong, from whatever JSON it says it in; "" if it is none that we know."""
    try:
        return _text_of(_ANYTHING.decode(data))
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return ""


def _text_of(value: Any) -> str:  # noqa: ANN401
    for _ in range(_TEXT_DEPTH):
        if isinstance(value, dict):
            value = next((value[name] for name in _TEXT_AT if value.get(name)), "")
        elif isinstance(value, list) and value:
            value = value[0]
    return value if isinstance(value, str) else ""

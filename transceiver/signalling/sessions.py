"""The session object of the API, as far as signalling has to know it: checked when it goes into a client secret, where nobody
could be told later; shown whole, with what was left out; joined of what secret, body and query say.

Agents read it themselves, and may know more than is checked here.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from transceiver.signalling.errors import SignallingError

__all__ = ["check_session", "effective_session", "join_sessions"]

# Specification constants
MAX_TOOLS = 128

Word: TypeAlias = Annotated[str, Meta(max_length=256)]


class _Format(msgspec.Struct):
    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"]
    rate: Literal[24000] | None = None


class _NoiseReduction(msgspec.Struct):
    type: Literal["near_field", "far_field"] | None = None


class _TurnDetection(msgspec.Struct):
    type: Literal["server_vad", "semantic_vad"]
    threshold: Annotated[float, Meta(ge=0, le=1)] | None = None
    prefix_padding_ms: Annotated[int, Meta(ge=0)] | None = None
    silence_duration_ms: Annotated[int, Meta(ge=0)] | None = None
    idle_timeout_ms: Annotated[int, Meta(ge=0)] | None = None
    eagerness: Literal["low", "medium", "high", "auto"] | None = None
    create_response: bool | None = None
    interrupt_response: bool | None = None


class _Transcription(msgspec.Struct):
    model: Word | None = None
    language: Word | None = None
    prompt: str | None = None


class _Input(msgspec.Struct):
    format: _Format | None = None
    transcription: _Transcription | None = None
    noise_reduction: _NoiseReduction | None = None
    turn_detection: _TurnDetection | None = None


class _Output(msgspec.Struct):
    format: _Format | None = None
    voice: Word | dict[str, Any] | None = None
    speed: Annotated[float, Meta(ge=0.25, le=1.5)] | None = None


class _Audio(msgspec.Struct):
    input: _Input | None = None
    output: _Output | None = None


class _Tool(msgspec.Struct):
    type: Literal["function", "mcp"]


class _Session(msgspec.Struct):
    """What the fields must be, where they are given. Nothing is read from it."""

    type: Literal["realtime"] = "realtime"
    model: Word | None = None
    output_modalities: Annotated[list[Literal["audio", "text"]], Meta(min_length=1, max_length=1)] | None = None
    instructions: str | None = None
    tools: Annotated[list[_Tool], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | dict[str, Any] | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=4096)] | Literal["inf"] | None = None
    tracing: Literal["auto"] | dict[str, Any] | None = None
    truncation: Literal["auto", "disabled"] | dict[str, Any] | None = None
    prompt: dict[str, Any] | None = None
    include: list[str] | None = None
    audio: _Audio | None = None


_PCM = {"type": "audio/pcm", "rate": 24000}
_DEFAULTS: dict[str, Any] = {
    "type": "realtime",
    "model": "antiphon",
    "output_modalities": ["audio"],
    "instructions": "",
    "tools": [],
    "tool_choice": "auto",
    "max_output_tokens": "inf",
    "tracing": None,
    "truncation": "auto",
    "prompt": None,
    "include": None,
}
_INPUT_DEFAULTS: dict[str, Any] = {
    "format": _PCM,
    "transcription": None,
    "noise_reduction": None,
    "turn_detection": {
        "type": "server_vad",
        "threshold": 0.5,
        "prefix_padding_ms": 300,
        "silence_duration_ms": 500,
        "idle_timeout_ms": None,
        "create_response": True,
        "interrupt_response": True,
    },
}
_OUTPUT_DEFAULTS: dict[str, Any] = {"format": _PCM, "voice": "alloy", "speed": 1.0}
_NULLABLE = frozenset({"tracing", "prompt", "include", "transcription", "noise_reduction", "turn_detection"})

_PLACE = re.compile(r" - at `(?:key in )?\$\.?([^`]*)`$")


def check_session(session: dict[str, Any]) -> None:
    """Raises SignallingError: 400, with the path of the field that cannot be."""
    if session.get("type") == "transcription":
        message = "Sessions that only transcribe are not served here: use type 'realtime'."
        raise SignallingError(400, "unsupported_session_type", message, param="session.type")
    try:
        msgspec.convert(session, _Session)
    except msgspec.ValidationError as error:
        place = _PLACE.search(str(error))
        param = ".".join(part for part in ("session", place[1] if place else "") if part)
        what = str(error)[: place.start()] if place else str(error)
        raise SignallingError(400, "invalid_session", f"Invalid value for '{param}': {what}.", param=param) from None


def effective_session(session: dict[str, Any], session_id: str) -> dict[str, Any]:
    """As the API shows it: what was asked for, over what holds where nothing was."""
    audio = session.get("audio") or {}
    return {
        "object": "realtime.session",
        "id": session_id,
        "expires_at": 0,  # it has not begun
        **_over(_DEFAULTS, session),
        "audio": {
            "input": _over(_INPUT_DEFAULTS, audio.get("input") or {}),
            "output": _over(_OUTPUT_DEFAULTS, audio.get("output") or {}),
        },
    }


def _over(defaults: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """null is the default, but where it means something itself."""
    named = {name: asked[name] for name in defaults if name in asked and (asked[name] is not None or name in _NULLABLE)}
    return defaults | named


def join_sessions(secret: bytes | None, body: bytes | None, model: str | None) -> bytes | None:
    """The session of a call, of JSON texts of objects. A field that the client secret names is the secret's: its maker said so
    on purpose, and its holder may be anybody. The query's model is for those who named none."""
    if (secret is None or body is None) and model is None:
        return secret if secret is not None else body
    joined: dict[str, msgspec.Raw] = {}
    for text in (body, secret):
        if text is not None:
            joined |= msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    if model is not None and bytes(joined.get("model", b"null")) == b"null":
        joined["model"] = msgspec.Raw(msgspec.json.encode(model))
    return msgspec.json.encode(joined)

"""The configuration of a session, as clients set it by `session.update` and read it in `session.created` and `session.updated`.

An update names what changes: fields that it does not name stay, `audio.input` and `audio.output` are looked at field by
field, everything below is replaced whole. null is back to the default, but where null itself means something (no turn
detection, no transcription). An update that cannot be changes nothing.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from agent.realtime.errors import ApiError, Code
from agent.realtime.shapes import raise_for

__all__ = [
    "AudioFormat",
    "FunctionTool",
    "Modality",
    "SemanticVad",
    "ServerVad",
    "Settings",
    "ShortText",
    "ToolChoice",
    "TurnDetection",
    "update_settings",
]

MAX_TOOLS = 128
MAX_DEPTH = 64  # of objects and lists in one another
MAX_BYTES = 64 * 1024  # as JSON: every later update goes through all of it again
MAX_NODES = 2000  # objects and lists
MAX_OUTPUT_TOKENS = 4096

Modality: TypeAlias = Literal["audio", "text"]
ShortText: TypeAlias = Annotated[str, Meta(max_length=256)]


class Pcm(msgspec.Struct, tag_field="type", tag="audio/pcm", frozen=True):
    rate: Literal[24000] = 24000


class Pcmu(msgspec.Struct, tag_field="type", tag="audio/pcmu", frozen=True):
    pass


class Pcma(msgspec.Struct, tag_field="type", tag="audio/pcma", frozen=True):
    pass


AudioFormat: TypeAlias = Pcm | Pcmu | Pcma


class ServerVad(msgspec.Struct, tag_field="type", tag="server_vad", frozen=True, kw_only=True):
    """A turn ends after so much silence."""

    threshold: Annotated[float, Meta(ge=0, le=1)] = 0.5
    prefix_padding_ms: Annotated[int, Meta(ge=0, le=5000)] = 300
    silence_duration_ms: Annotated[int, Meta(ge=20, le=10_000)] = 500
    idle_timeout_ms: Annotated[int, Meta(ge=5000, le=30_000)] | None = None
    create_response: bool = True
    interrupt_response: bool = True


class SemanticVad(msgspec.Struct, tag_field="type", tag="semantic_vad", frozen=True, kw_only=True):
    """A turn ends when what was said sounds finished, and after a long silence in any case."""

    eagerness: Literal["low", "medium", "high", "auto"] = "auto"
    create_response: bool = True
    interrupt_response: bool = True


TurnDetection: TypeAlias = ServerVad | SemanticVad


class NoiseReduction(msgspec.Struct, frozen=True):
    type: Literal["near_field", "far_field"]


class Transcription(msgspec.Struct, frozen=True, kw_only=True):
    model: ShortText | None = None
    language: ShortText | None = None
    prompt: str | None = None


class AudioInput(msgspec.Struct, frozen=True, kw_only=True):
    format: AudioFormat = Pcm()
    transcription: Transcription | None = None
    noise_reduction: NoiseReduction | None = None
    turn_detection: TurnDetection | None = ServerVad()


class AudioOutput(msgspec.Struct, frozen=True, kw_only=True):
    format: AudioFormat = Pcm()
    voice: ShortText = "alloy"
    speed: Annotated[float, Meta(ge=0.25, le=1.5)] = 1.0


class Audio(msgspec.Struct, frozen=True):
    input: AudioInput = AudioInput()
    output: AudioOutput = AudioOutput()


class FunctionTool(msgspec.Struct, tag_field="type", tag="function", frozen=True, kw_only=True):
    name: Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None


class ToolFunction(msgspec.Struct, tag_field="type", tag="function", frozen=True):
    name: ShortText


ToolChoice: TypeAlias = Literal["none", "auto", "required"] | ToolFunction


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Lists have no default of `[]` among their bounds: what a client may send is bounded by the size of its event."""

    type: Literal["realtime"] = "realtime"
    model: ShortText = "antiphon"
    output_modalities: Annotated[list[Modality], Meta(min_length=1, max_length=1)] = msgspec.field(
        default_factory=lambda: ["audio"]
    )
    instructions: str = ""
    tools: Annotated[list[FunctionTool], Meta(max_length=MAX_TOOLS)] = msgspec.field(default_factory=list)
    tool_choice: ToolChoice = "auto"
    max_output_tokens: Annotated[int, Meta(ge=1, le=MAX_OUTPUT_TOKENS)] | Literal["inf"] = "inf"
    tracing: Literal["auto"] | dict[str, Any] | None = None
    truncation: Literal["auto", "disabled"] | dict[str, Any] = "auto"
    prompt: dict[str, Any] | None = None
    include: list[Literal["item.input_audio_transcription.logprobs"]] | None = None
    audio: Audio = Audio()

    @property
    def speaks(self) -> bool:
        return self.output_modalities == ["audio"]


_NULLABLE = frozenset({"tracing", "prompt", "include", "transcription", "noise_reduction", "turn_detection"})


def update_settings(settings: Settings, change: dict[str, Any], *, voice_is_fixed: bool = False) -> Settings:
    """Raises ApiError, with `param` below `session`."""
    _refuse_what_is_not_served(change)
    merged = msgspec.to_builtins(settings)
    ways = {"input": merged["audio"]["input"], "output": merged["audio"]["output"]}
    audio = change.get("audio")
    _merge(merged, {name: value for name, value in change.items() if name != "audio" or not isinstance(value, dict)})
    if isinstance(audio, dict):
        for way, value in audio.items():
            if way in ways and isinstance(value, dict):
                _merge(ways[way], value)
            else:
                _merge(merged["audio"], {way: value})
    _refuse_mazes(merged)  # first: what is nested too deeply cannot be encoded
    if len(msgspec.json.encode(merged)) > MAX_BYTES:
        raise ApiError(Code.TOO_LARGE, f"The session would have more than {MAX_BYTES} bytes.", "session")
    try:
        changed = msgspec.convert(merged, Settings)
    except msgspec.ValidationError as error:
        raise_for(error, "session")
    if voice_is_fixed and changed.audio.output.voice != settings.audio.output.voice:
        message = "Cannot update the voice of a session that has already produced audio."
        raise ApiError(Code.VOICE_FIXED, message, "session.audio.output.voice")
    return changed


def _merge(into: dict[str, Any], change: dict[str, Any]) -> None:
    for name, value in change.items():
        if value is None and name not in _NULLABLE:
            into.pop(name, None)
        else:
            into[name] = value


def _refuse_mazes(session: dict[str, Any]) -> None:
    waiting: list[tuple[dict[str, Any] | list[Any], int]] = [(session, 0)]
    nodes = 0
    while waiting:
        value, depth = waiting.pop()
        nodes += 1
        if depth > MAX_DEPTH:
            raise ApiError(Code.INVALID_VALUE, "The session is nested too deeply.", "session")
        values = value.values() if isinstance(value, dict) else value
        inner = [one for one in values if isinstance(one, dict | list)]
        if nodes + len(waiting) + len(inner) > MAX_NODES:
            message = f"The session would have more than {MAX_NODES} objects and lists."
            raise ApiError(Code.TOO_LARGE, message, "session")
        waiting += [(one, depth + 1) for one in inner]


def _refuse_what_is_not_served(change: dict[str, Any]) -> None:
    tools = change.get("tools")
    for index, tool in enumerate(tools if isinstance(tools, list) else ()):
        if isinstance(tool, dict) and tool.get("type") == "mcp":
            message = "Tools of MCP servers are not supported here: declare functions."
            raise ApiError(Code.UNSUPPORTED, message, f"session.tools[{index}].type")
    if change.get("type") == "transcription":
        message = "Sessions that only transcribe are not supported here: use type 'realtime'."
        raise ApiError(Code.UNSUPPORTED, message, "session.type")

"""The events that a session sends. Field for field the API's; `event_id` is filled in when one is sent."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from agent.realtime.items import Item
from protocol.realtime.errors import ApiError

__all__ = [
    "ContentPart",
    "ConversationCreated",
    "ErrorEvent",
    "FunctionArgumentsDelta",
    "FunctionArgumentsDone",
    "InputCleared",
    "InputCommitted",
    "ItemAdded",
    "ItemDeleted",
    "ItemDone",
    "ItemRetrieved",
    "ItemTruncated",
    "OutputAudioDelta",
    "OutputAudioDone",
    "OutputCleared",
    "OutputItemAdded",
    "OutputItemDone",
    "OutputStarted",
    "OutputStopped",
    "PartAdded",
    "PartDone",
    "RateLimit",
    "RateLimitsUpdated",
    "ResponseBody",
    "ResponseCreated",
    "ResponseDone",
    "ServerEvent",
    "SessionCreated",
    "SessionUpdated",
    "SpeechStarted",
    "SpeechStopped",
    "StatusDetails",
    "TextDelta",
    "TextDone",
    "TimeoutTriggered",
    "TranscriptDelta",
    "TranscriptDone",
    "TranscriptionCompleted",
    "TranscriptionDelta",
    "TranscriptionFailed",
    "Usage",
]


class ServerEvent(msgspec.Struct, tag_field="type", kw_only=True):
    event_id: str = ""


# Session and errors


class SessionCreated(ServerEvent, tag="session.created", kw_only=True):
    session: dict[str, Any]


class SessionUpdated(ServerEvent, tag="session.updated", kw_only=True):
    session: dict[str, Any]


class ErrorBody(msgspec.Struct, kw_only=True):
    type: str
    code: str | None
    message: str
    param: str | None
    event_id: str | None


class ErrorEvent(ServerEvent, tag="error", kw_only=True):
    error: ErrorBody

    @classmethod
    def of(cls, error: ApiError, event_id: str | None) -> ErrorEvent:
        """`event_id`: the client's, of the event that caused it."""
        body = ErrorBody(
            type=error.kind, code=str(error.code), message=error.message, param=error.param, event_id=event_id
        )
        return cls(error=body)


class RateLimit(msgspec.Struct, kw_only=True):
    name: Literal["requests", "tokens"]
    limit: int
    remaining: int
    reset_seconds: float


class RateLimitsUpdated(ServerEvent, tag="rate_limits.updated", kw_only=True):
    rate_limits: list[RateLimit]


# The conversation


class Conversation(msgspec.Struct):
    id: str
    object: Literal["realtime.conversation"] = "realtime.conversation"


class ConversationCreated(ServerEvent, tag="conversation.created", kw_only=True):
    conversation: Conversation


class ItemAdded(ServerEvent, tag="conversation.item.added", kw_only=True):
    previous_item_id: str | None
    item: Item


class ItemDone(ServerEvent, tag="conversation.item.done", kw_only=True):
    previous_item_id: str | None
    item: Item


class ItemRetrieved(ServerEvent, tag="conversation.item.retrieved", kw_only=True):
    item: Item


class ItemTruncated(ServerEvent, tag="conversation.item.truncated", kw_only=True):
    item_id: str
    content_index: int
    audio_end_ms: int


class ItemDeleted(ServerEvent, tag="conversation.item.deleted", kw_only=True):
    item_id: str


class TranscriptionDelta(ServerEvent, tag="conversation.item.input_audio_transcription.delta", kw_only=True):
    item_id: str
    content_index: int
    delta: str


class TranscriptionUsage(msgspec.Struct, tag_field="type", tag="duration"):
    seconds: float


class TranscriptionCompleted(ServerEvent, tag="conversation.item.input_audio_transcription.completed", kw_only=True):
    item_id: str
    content_index: int
    transcript: str
    usage: TranscriptionUsage


class TranscriptionError(msgspec.Struct, kw_only=True):
    type: str
    code: str | None = None
    message: str
    param: str | None = None


class TranscriptionFailed(ServerEvent, tag="conversation.item.input_audio_transcription.failed", kw_only=True):
    item_id: str
    content_index: int
    error: TranscriptionError


# The caller's audio


class SpeechStarted(ServerEvent, tag="input_audio_buffer.speech_started", kw_only=True):
    audio_start_ms: int
    item_id: str


class SpeechStopped(ServerEvent, tag="input_audio_buffer.speech_stopped", kw_only=True):
    audio_end_ms: int
    item_id: str


class TimeoutTriggered(ServerEvent, tag="input_audio_buffer.timeout_triggered", kw_only=True):
    audio_start_ms: int
    audio_end_ms: int
    item_id: str


class InputCommitted(ServerEvent, tag="input_audio_buffer.committed", kw_only=True):
    previous_item_id: str | None
    item_id: str


class InputCleared(ServerEvent, tag="input_audio_buffer.cleared", kw_only=True):
    pass


# Responses


class ResponseError(msgspec.Struct, kw_only=True):
    type: str
    code: str | None = None
    message: str | None = None


class StatusDetails(msgspec.Struct, kw_only=True):
    type: Literal["completed", "cancelled", "incomplete", "failed"]
    reason: Literal["turn_detected", "client_cancelled", "max_output_tokens", "content_filter"] | None = None
    error: ResponseError | None = None


class InputTokenDetails(msgspec.Struct, kw_only=True):
    text_tokens: int = 0
    audio_tokens: int = 0
    cached_tokens: int = 0


class OutputTokenDetails(msgspec.Struct, kw_only=True):
    text_tokens: int = 0
    audio_tokens: int = 0


class Usage(msgspec.Struct, kw_only=True):
    total_tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    input_token_details: InputTokenDetails = msgspec.field(default_factory=InputTokenDetails)
    output_token_details: OutputTokenDetails = msgspec.field(default_factory=OutputTokenDetails)


class ResponseBody(msgspec.Struct, kw_only=True):
    id: str
    object: Literal["realtime.response"] = "realtime.response"
    status: Literal["in_progress", "completed", "cancelled", "incomplete", "failed"] = "in_progress"
    status_details: StatusDetails | None = None
    output: list[Item] = msgspec.field(default_factory=list)
    conversation_id: str | None = None
    output_modalities: list[str]
    max_output_tokens: int | Literal["inf"] = "inf"
    audio: dict[str, Any] | None = None
    metadata: dict[str, str] | None = None
    usage: Usage | None = None


class ResponseCreated(ServerEvent, tag="response.created", kw_only=True):
    response: ResponseBody


class ResponseDone(ServerEvent, tag="response.done", kw_only=True):
    response: ResponseBody


class OutputItemAdded(ServerEvent, tag="response.output_item.added", kw_only=True):
    response_id: str
    output_index: int
    item: Item


class OutputItemDone(ServerEvent, tag="response.output_item.done", kw_only=True):
    response_id: str
    output_index: int
    item: Item


class ContentPart(msgspec.Struct, kw_only=True, omit_defaults=True):
    type: Literal["text", "audio"]
    text: str | None = None
    transcript: str | None = None


class _InResponse(ServerEvent, kw_only=True):
    response_id: str
    item_id: str
    output_index: int


class _InPart(_InResponse, kw_only=True):
    content_index: int


class PartAdded(_InPart, tag="response.content_part.added", kw_only=True):
    part: ContentPart


class PartDone(_InPart, tag="response.content_part.done", kw_only=True):
    part: ContentPart


class TextDelta(_InPart, tag="response.output_text.delta", kw_only=True):
    delta: str


class TextDone(_InPart, tag="response.output_text.done", kw_only=True):
    text: str


class TranscriptDelta(_InPart, tag="response.output_audio_transcript.delta", kw_only=True):
    delta: str


class TranscriptDone(_InPart, tag="response.output_audio_transcript.done", kw_only=True):
    transcript: str


class OutputAudioDelta(_InPart, tag="response.output_audio.delta", kw_only=True):
    """Not over WebRTC, where audio is media."""

    delta: str


class OutputAudioDone(_InPart, tag="response.output_audio.done", kw_only=True):
    pass


class FunctionArgumentsDelta(_InResponse, tag="response.function_call_arguments.delta", kw_only=True):
    call_id: str
    delta: str


class FunctionArgumentsDone(_InResponse, tag="response.function_call_arguments.done", kw_only=True):
    call_id: str
    name: str
    arguments: str


# What the caller hears


class _OfResponse(ServerEvent, kw_only=True):
    response_id: str


class OutputStarted(_OfResponse, tag="output_audio_buffer.started", kw_only=True):
    pass


class OutputStopped(_OfResponse, tag="output_audio_buffer.stopped", kw_only=True):
    pass


class OutputCleared(_OfResponse, tag="output_audio_buffer.cleared", kw_only=True):
    pass

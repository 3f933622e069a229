"""What a client is told when it asked for something that cannot be: the `error` object of the Realtime API."""

from __future__ import annotations

import enum

__all__ = ["ApiError", "Code"]


class Code(enum.StrEnum):
    """Why, as a word for programs."""

    INVALID_JSON = "invalid_json"
    INVALID_VALUE = "invalid_value"
    MISSING_PARAMETER = "missing_required_parameter"
    INVALID_TYPE = "invalid_type"
    TOO_LARGE = "event_too_large"
    ITEM_NOT_FOUND = "item_not_found"
    ITEM_EXISTS = "item_already_exists"
    NO_CALL = "invalid_tool_call_id"
    BUFFER_EMPTY = "input_audio_buffer_commit_empty"
    BUFFER_OVERRUN = "input_audio_buffer_overrun"
    RESPONSE_ACTIVE = "conversation_already_has_active_response"
    NO_RESPONSE = "response_cancel_not_active"
    VOICE_FIXED = "cannot_update_voice"
    UNSUPPORTED = "unsupported"
    TOO_MANY = "too_many"
    EVENTS_MISSED = "events_missed"
    MODEL_FAILED = "model_failed"


class ApiError(Exception):
    """Raised where an event of the client is looked at; the session goes on. `param` is the field that is to blame, as a path
    such as `session.audio.output.voice`; `kind` the API's `type`."""

    def __init__(self, code: Code, message: str, param: str | None = None, kind: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        self.kind = kind

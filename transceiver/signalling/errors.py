"""Errors of signalling: one shape, `{"error": {"message", "type", "param", "code"}}`, the one OpenAI's clients read."""

from __future__ import annotations

from starlette.responses import JSONResponse

__all__ = ["SignallingError", "error_response"]

_KINDS = {429: "rate_limit_error"}


class SignallingError(Exception):
    """A request that is answered with an error. `code` is a stable word, `message` a sentence for people."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after: int | None = None,
        accept_patch: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.accept_patch = accept_patch


def error_response(error: SignallingError) -> JSONResponse:
    kind = "server_error" if error.status >= 500 else _KINDS.get(error.status, "invalid_request_error")
    headers = {"Cache-Control": "no-store"}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"  # RFC 9110 §15.5.2
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if error.accept_patch is not None:
        headers["Accept-Patch"] = error.accept_patch
    content = {"error": {"message": error.message, "type": kind, "param": error.param, "code": error.code}}
    return JSONResponse(content, status_code=error.status, headers=headers)

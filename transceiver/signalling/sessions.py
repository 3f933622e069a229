"""The session object of the API, as far as signalling has to know it: checked when it comes, since later nobody can be told;
shown whole, with what was left out; joined of what secret, body and query say.

It is checked by the schema of the sessions themselves (`protocol.realtime`). Agents read it themselves, and may know fields
that are passed over here.
"""

from __future__ import annotations

from typing import Any

import msgspec

from protocol.realtime.errors import ApiError
from protocol.realtime.settings import Settings, update_settings
from transceiver.signalling.errors import SignallingError

__all__ = ["check_session", "effective_session", "join_sessions"]


def check_session(session: dict[str, Any]) -> Settings:
    """Raises SignallingError: 400, with the path of the field that cannot be."""
    try:
        return update_settings(Settings(), session)
    except ApiError as error:
        code = "unsupported_session_type" if session.get("type") == "transcription" else "invalid_session"
        raise SignallingError(400, code, error.message, param=error.param or "session") from None


def effective_session(settings: Settings, session_id: str) -> dict[str, Any]:
    """As the API shows it: what was asked for, over what holds where nothing was. It has not begun."""
    return {"object": "realtime.session", "id": session_id, "expires_at": 0, **msgspec.to_builtins(settings)}


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

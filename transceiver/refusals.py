"""What we answer a client in the agent's place, in the words of the Realtime API."""

from __future__ import annotations

import msgspec

from protocol.agentlink import MAX_DATA_BYTES
from protocol.wire import Entropy

__all__ = ["too_large"]


def too_large(entropy: Entropy) -> str:
    """The event was dropped before anybody could read it, its id too."""
    error = {
        "type": "invalid_request_error",
        "code": "event_too_large",
        "message": f"The event is larger than {MAX_DATA_BYTES} bytes.",
        "param": None,
        "event_id": None,
    }
    return msgspec.json.encode({"type": "error", "event_id": f"event_{entropy(12).hex()}", "error": error}).decode()

"""The stages of a call's set-up: which there are, and from where the time of each counts."""

from __future__ import annotations

__all__ = ["CONVERSATION_STAGES", "ECHO_STAGES", "STAGES", "STAGE_NAMES"]

STAGES = {
    "signalling": "start",  # offer posted → answer here
    "ice": "signalling",  # → a path works
    "dtls": "ice",  # → keys
    "channel": "dtls",  # → the data channel is open
    "audio": "dtls",  # → a frame of ours has come back
    "session": "channel",  # → the Realtime session is as the caller wants it
}
"""Each stage, and the one from whose end its time counts."""

_CALL = ("start", "signalling", "ice", "dtls", "channel")
ECHO_STAGES = (*_CALL, "audio")
CONVERSATION_STAGES = (*_CALL, "session")

STAGE_NAMES = {
    "signalling": "set-up: signalling",
    "ice": "set-up: ICE",
    "dtls": "set-up: DTLS",
    "channel": "set-up: data channel, after DTLS",
    "audio": "set-up: first audio, after DTLS",
    "session": "set-up: session, after the channel",
    "all": "set-up: all",
}
"""As the tables say them."""

"""Why a call ended. One word for the metric label, the log line, the agent's `call.end` and the client's message."""

from __future__ import annotations

import enum

__all__ = ["CloseReason"]


class CloseReason(enum.Enum):
    """The first reason wins; whatever follows it is a consequence."""

    HANGUP = "hangup"  # the client asked by HTTP (hangup or DELETE)
    PEER_CLOSED = "peer_closed"  # the client said goodbye in DTLS
    AGENT_ENDED = "agent_ended"
    AGENT_REFUSED = "agent_refused"
    AGENT_UNAVAILABLE = "agent_unavailable"  # no agent took the call before the setup deadline
    ICE_TIMEOUT = "ice_timeout"  # no authenticated check arrived
    DTLS_TIMEOUT = "dtls_timeout"
    DTLS_FAILED = "dtls_failed"
    FINGERPRINT_MISMATCH = "fingerprint_mismatch"
    CONSENT_LOST = "consent_lost"  # RFC 7675: no valid check for 30 s
    TRANSPORT_FAILED = "transport_failed"
    SETUP_TIMEOUT = "setup_timeout"
    MAX_DURATION = "max_duration"
    DRAINED = "drained"  # still talking when the drain deadline came
    SHUTDOWN = "shutdown"  # the process was told to stop at once
    EVICTED = "evicted"  # half-open for longest when the limit of half-open calls was reached
    INTERNAL_ERROR = "internal_error"

"""Why a call ended. One word for the metric label, the log line, the agent's `call.end` and the client's message."""

from __future__ import annotations

import enum

from transceiver.session.tables import Life, Transport

__all__ = ["DEADLINE_REASONS", "SILENT", "UNREACHABLE", "CloseReason"]


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


# What is to blame when a state was held too long.
DEADLINE_REASONS: dict[enum.Enum, CloseReason] = {
    Transport.WAITING: CloseReason.ICE_TIMEOUT,
    Transport.HANDSHAKING: CloseReason.DTLS_TIMEOUT,
    Transport.SUSPECT: CloseReason.CONSENT_LOST,
    Life.STARTING: CloseReason.SETUP_TIMEOUT,
    Life.LIVE: CloseReason.MAX_DURATION,
    Life.DRAINING: CloseReason.DRAINED,
}
# The client cannot hear us any more: no message to it. Without consent not even a datagram (RFC 7675 §5.1).
UNREACHABLE = frozenset(
    {
        CloseReason.PEER_CLOSED,
        CloseReason.ICE_TIMEOUT,
        CloseReason.DTLS_TIMEOUT,
        CloseReason.DTLS_FAILED,
        CloseReason.FINGERPRINT_MISMATCH,
        CloseReason.CONSENT_LOST,
        CloseReason.TRANSPORT_FAILED,
    }
)
SILENT = frozenset({CloseReason.ICE_TIMEOUT, CloseReason.CONSENT_LOST})

"""One call: its state machine, and what the machine's effects do."""

from transceiver.session.reasons import CloseReason
from transceiver.session.session import Host, Session, SessionParts

__all__ = ["CloseReason", "Host", "Session", "SessionParts"]

"""One call: its state machine, and what the machine's effects do."""

from transceiver.session.channels import EVENTS_LABEL
from transceiver.session.controllers import Controller
from transceiver.session.parts import Host, SessionParts
from transceiver.session.reasons import CloseReason
from transceiver.session.session import Session
from transceiver.session.tables import Life

__all__ = ["EVENTS_LABEL", "CloseReason", "Controller", "Host", "Life", "Session", "SessionParts"]

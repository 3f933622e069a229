"""Signalling: offers in, answers out, over HTTP. It reads requests and writes responses; `Calls` decides."""

from transceiver.signalling.app import create_app
from transceiver.signalling.body import read_body_in_time
from transceiver.signalling.calls import CallRequest, Calls, CreatedCall, TaggedAnswer
from transceiver.signalling.errors import SignallingError, error_response
from transceiver.signalling.preconditions import check_if_match
from transceiver.signalling.server import ConnectionDoor, ConnectionLimits, serve_signalling

__all__ = [
    "CallRequest",
    "Calls",
    "ConnectionDoor",
    "ConnectionLimits",
    "CreatedCall",
    "SignallingError",
    "TaggedAnswer",
    "check_if_match",
    "create_app",
    "error_response",
    "read_body_in_time",
    "serve_signalling",
]

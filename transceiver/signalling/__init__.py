"""Signalling: offers in, answers out, over HTTP. It reads requests and writes responses; `Calls` decides."""

from transceiver.signalling.api_keys import new_key
from transceiver.signalling.app import create_app
from transceiver.signalling.auth import Access, new_secret_key
from transceiver.signalling.body import read_body_in_time
from transceiver.signalling.calls import CallRequest, Calls, CreatedCall, TaggedAnswer
from transceiver.signalling.errors import SignallingError, error_response
from transceiver.signalling.origins import Guard, Origins
from transceiver.signalling.permits import Permit
from transceiver.signalling.pipe import Closing, pipe
from transceiver.signalling.preconditions import check_if_match
from transceiver.signalling.realtime import WEBSOCKETS, identify_controller
from transceiver.signalling.server import ConnectionDoor, ConnectionLimits, serve_signalling
from transceiver.signalling.usage import Usage

__all__ = [
    "WEBSOCKETS",
    "Access",
    "CallRequest",
    "Calls",
    "Closing",
    "ConnectionDoor",
    "ConnectionLimits",
    "CreatedCall",
    "Guard",
    "Origins",
    "Permit",
    "SignallingError",
    "TaggedAnswer",
    "Usage",
    "check_if_match",
    "create_app",
    "error_response",
    "identify_controller",
    "new_key",
    "new_secret_key",
    "pipe",
    "read_body_in_time",
    "serve_signalling",
]

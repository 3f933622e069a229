"""Signalling: offers in, answers out, over HTTP. It reads requests and writes responses; `Calls` decides."""

from transceiver.signalling.app import create_app
from transceiver.signalling.calls import CallRequest, Calls, CreatedCall
from transceiver.signalling.errors import SignallingError
from transceiver.signalling.server import ConnectionDoor, ConnectionLimits, serve_signalling

__all__ = [
    "CallRequest",
    "Calls",
    "ConnectionDoor",
    "ConnectionLimits",
    "CreatedCall",
    "SignallingError",
    "create_app",
    "serve_signalling",
]

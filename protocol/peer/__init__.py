"""One WebRTC peer, joined from the cores: what the transceiver's engine and the load generator drive."""

from __future__ import annotations

from protocol.ice import ConsentLate, ConsentRestored, PathSelected, RestartCompleted, SendTo
from protocol.peer.endpoint import Peer, PeerConfig
from protocol.peer.events import (
    AudioParameters,
    AudioReceived,
    CircuitBroken,
    DataChannelsClosed,
    DataParameters,
    DtlsConnected,
    PeerClosed,
    PeerEvent,
    PeerOutput,
    PeerStatistics,
    TransportFailed,
)
from protocol.peer.lane import DONE, LEFT, SEND_ROOM, SETTLE, Deliver, MediaLane

__all__ = [
    "DONE",
    "LEFT",
    "SEND_ROOM",
    "SETTLE",
    "AudioParameters",
    "AudioReceived",
    "CircuitBroken",
    "ConsentLate",
    "ConsentRestored",
    "DataChannelsClosed",
    "DataParameters",
    "Deliver",
    "DtlsConnected",
    "MediaLane",
    "PathSelected",
    "Peer",
    "PeerClosed",
    "PeerConfig",
    "PeerEvent",
    "PeerOutput",
    "PeerStatistics",
    "RestartCompleted",
    "SendTo",
    "TransportFailed",
]

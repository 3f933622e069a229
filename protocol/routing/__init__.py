"""How a datagram finds the transceiver that owns its call: route tokens, the transceivers' prefix, the trunk."""

from protocol.routing.config import RoutingConfig
from protocol.routing.prefix import Prefix
from protocol.routing.token import UFRAG_LENGTH, KeyRing, RouteToken
from protocol.routing.trunk import (
    DATAGRAM_OVERHEAD,
    MAX_INGRESS,
    Bundle,
    Frame,
    Trunk,
    TrunkHead,
    TrunkKind,
    frame_overhead,
)

__all__ = [
    "DATAGRAM_OVERHEAD",
    "MAX_INGRESS",
    "UFRAG_LENGTH",
    "Bundle",
    "Frame",
    "KeyRing",
    "Prefix",
    "RouteToken",
    "RoutingConfig",
    "Trunk",
    "TrunkHead",
    "TrunkKind",
    "frame_overhead",
]

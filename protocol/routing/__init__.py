"""How a datagram finds the transceiver that owns its call: route tokens, the transceivers' prefix, the trunk."""

from protocol.routing.config import RoutingConfig
from protocol.routing.notices import (
    BOOT_LENGTH,
    NO_BOOT,
    Announcement,
    announce,
    hello,
    is_notice,
    read_announcement_untrusted,
    read_hello_untrusted,
)
from protocol.routing.prefix import Prefix
from protocol.routing.token import UFRAG_LENGTH, KeyRing, RouteToken
from protocol.routing.trunk import (
    DATAGRAM_OVERHEAD,
    MAX_INGRESS,
    VERSION,
    Bundle,
    Frame,
    Trunk,
    TrunkHead,
    TrunkKind,
    frame_overhead,
)

__all__ = [
    "BOOT_LENGTH",
    "DATAGRAM_OVERHEAD",
    "MAX_INGRESS",
    "NO_BOOT",
    "UFRAG_LENGTH",
    "VERSION",
    "Announcement",
    "Bundle",
    "Frame",
    "KeyRing",
    "Prefix",
    "RouteToken",
    "RoutingConfig",
    "Trunk",
    "TrunkHead",
    "TrunkKind",
    "announce",
    "frame_overhead",
    "hello",
    "is_notice",
    "read_announcement_untrusted",
    "read_hello_untrusted",
]

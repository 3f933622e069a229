"""Which protocol a datagram belongs to, by its first bytes (RFC 7983 §7 as updated by RFC 9443, RFC 5761 §4).

0-3     STUN
20-63   DTLS
128-191 RTP, or RTCP when the second byte is 192-223
0xC5    an Antiphon trunk datagram (192-255 is given to no protocol that shares a WebRTC port)
else    nothing we speak: dropped silently
"""

from __future__ import annotations

import enum

__all__ = ["TRUNK_FIRST_BYTE", "Kind", "classify_untrusted"]

TRUNK_FIRST_BYTE = 0xC5


class Kind(enum.Enum):
    STUN = "stun"
    DTLS = "dtls"
    RTP = "rtp"
    RTCP = "rtcp"
    TRUNK = "trunk"
    UNKNOWN = "unknown"


def classify_untrusted(data: bytes | memoryview) -> Kind:
    """The protocol of a datagram; never raises."""
    if len(data) < 2:
        return Kind.UNKNOWN
    first = data[0]
    if 128 <= first <= 191:
        return Kind.RTCP if 192 <= data[1] <= 223 else Kind.RTP
    if first <= 3:
        return Kind.STUN
    if 20 <= first <= 63:
        return Kind.DTLS
    if first == TRUNK_FIRST_BYTE:
        return Kind.TRUNK
    return Kind.UNKNOWN

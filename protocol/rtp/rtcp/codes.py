"""RTCP packet types and the common header (RFC 3550 §6.4, §12.1).

 0                   1                   2                   3
 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
|V=2|P|  count  |  packet type  | length in words, less one     |

https://www.iana.org/assignments/rtp-parameters/
"""

from __future__ import annotations

import enum

from protocol.errors import LocalError

__all__ = ["MAX_COUNT", "RtcpType", "frame_packet"]

MAX_COUNT = 31
_VERSION_2 = 0x80


class RtcpType(enum.IntEnum):
    SR = 200
    RR = 201
    SDES = 202
    BYE = 203
    APP = 204
    RTPFB = 205
    PSFB = 206
    XR = 207


def frame_packet(packet_type: int, count: int, body: bytes) -> bytes:
    """The common header before `body`, which must already fill whole words."""
    if not 0 <= count <= MAX_COUNT or len(body) % 4 or len(body) > 4 * 0xFFFF:
        raise LocalError(f"RTCP packet of type {packet_type} cannot be framed")
    return bytes((_VERSION_2 | count, packet_type)) + (len(body) // 4).to_bytes(2, "big") + body

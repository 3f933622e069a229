"""DTMF digits as RTP events (RFC 4733 §2.3).

     0                   1                   2                   3
    |     event     |E|R| volume    |          duration             |

It is no audio codec: it rides beside one, in the same stream, under a payload type of its own.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from protocol.errors import DecodeError

__all__ = ["TELEPHONE_EVENT", "TELEPHONE_EVENT_RANGE", "TelephoneEvent", "parse_telephone_event_untrusted"]

# Specification constants
TELEPHONE_EVENT = "telephone-event"
TELEPHONE_EVENT_RANGE = "0-15"  # RFC 4733 §3.2: the digits 0-9 * # A-D, support for which is mandatory
DIGITS = "0123456789*#ABCD"
EVENT = struct.Struct("!BBH")


@dataclass(frozen=True, slots=True)
class TelephoneEvent:
    """One report of one key press; a press is reported several times, with growing `duration`, `end` on the last."""

    event: int
    end: bool
    volume: int
    """Attenuation, -dBm0."""
    duration: int
    """RTP clock ticks since the packet's timestamp."""

    @property
    def digit(self) -> str | None:
        return DIGITS[self.event] if self.event < len(DIGITS) else None


def parse_telephone_event_untrusted(payload: bytes) -> TelephoneEvent:
    """The event of an RTP payload. Bytes after the first event are other events' and ignored."""
    if len(payload) < EVENT.size:
        raise DecodeError("telephone_event_truncated")
    event, flags, duration = EVENT.unpack_from(payload)
    return TelephoneEvent(event, bool(flags & 0x80), flags & 0x3F, duration)

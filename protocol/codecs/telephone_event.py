"""DTMF digits as RTP events (RFC 4733 §2.3).

     0                   1                   2                   3
    |     event     |E|R| volume    |          duration             |

It is no audio codec: it rides beside one, in the same stream, under a payload type of its own. A key press is a row of
packets with the timestamp of its beginning; the last one is sent three times (§2.5.1.4), and any of them may be lost. A
press that lasts longer than `duration` can say goes on under a new timestamp, where the old segment ended (§2.5.1.3).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from protocol.errors import DecodeError

__all__ = [
    "TELEPHONE_EVENT",
    "TELEPHONE_EVENT_RANGE",
    "KeyPresses",
    "TelephoneEvent",
    "parse_telephone_event_untrusted",
]

# Specification constants
TELEPHONE_EVENT = "telephone-event"
TELEPHONE_EVENT_RANGE = "0-15"  # RFC 4733 §3.2: the digits 0-9 * # A-D, support for which is mandatory
DIGITS = "0123456789*#ABCD"
EVENT = struct.Struct("!BBH")
MAX_DURATION = 0xFFFF

# Implementation constants
_STRAGGLER_TICKS = 1 << 20  # 22 s at 48 kHz: a timestamp further back is that of a press long after


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


class KeyPresses:
    """Makes one event of the packets of one key press: told when the first of them comes, whichever it is."""

    __slots__ = ("_event", "_timestamp")

    def __init__(self) -> None:
        self._event = -1
        self._timestamp = 0

    def detect_untrusted(self, payload: bytes, timestamp: int) -> TelephoneEvent | None:
        """The event of an authenticated packet if a press begins with it; None if it was told. Raises DecodeError."""
        event = parse_telephone_event_untrusted(payload)
        ahead = timestamp - self._timestamp & 0xFFFFFFFF
        known = self._event >= 0
        if known and -ahead & 0xFFFFFFFF < _STRAGGLER_TICKS:  # the press we know, or a straggler of one before it
            return None
        continues = known and ahead == MAX_DURATION and event.event == self._event
        self._event, self._timestamp = event.event, timestamp
        return None if continues else event

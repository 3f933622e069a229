"""Data Channel Establishment Protocol (RFC 8832 §5): the OPEN and ACK messages.

OPEN:  type (3) | channel type (1) | priority (2) | reliability (4) | label length (2) | protocol length (2) | label |
protocol, both UTF-8.   ACK: type (2).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from protocol.errors import DecodeError, LocalError
from protocol.wire import Reader, Writer

__all__ = ["DcepAck", "DcepOpen", "Delivery", "Ppid", "build_open", "parse_dcep_untrusted"]


# Specification constants
class Ppid(enum.IntEnum):
    """Payload protocol identifiers (RFC 8831 §8)."""

    WEBRTC_DCEP = 50
    WEBRTC_STRING = 51
    WEBRTC_BINARY_PARTIAL = 52  # deprecated
    WEBRTC_BINARY = 53
    WEBRTC_STRING_PARTIAL = 54  # deprecated
    WEBRTC_STRING_EMPTY = 56
    WEBRTC_BINARY_EMPTY = 57


class DcepMessageType(enum.IntEnum):
    DATA_CHANNEL_ACK = 0x02
    DATA_CHANNEL_OPEN = 0x03


UNORDERED = 0x80
RELIABILITY_MASK = 0x7F
RELIABLE, LIMITED_RETRANSMISSIONS, LIMITED_LIFETIME = range(3)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a channel promises. `max_lifetime` is in seconds, on the wire in milliseconds. Raises LocalError."""

    ordered: bool = True
    max_retransmits: int | None = None
    max_lifetime: float | None = None

    def __post_init__(self) -> None:
        if self.max_retransmits is not None and self.max_lifetime is not None:
            raise LocalError("a channel limits retransmissions or lifetime, not both")
        if not 0 <= self.parameter <= 0xFFFFFFFF:
            raise LocalError(f"the limit of a channel is not among 0..4294967295: {self.parameter}")

    @property
    def channel_type(self) -> int:
        kind = RELIABLE
        if self.max_retransmits is not None:
            kind = LIMITED_RETRANSMISSIONS
        elif self.max_lifetime is not None:
            kind = LIMITED_LIFETIME
        return kind if self.ordered else kind | UNORDERED

    @property
    def parameter(self) -> int:
        if self.max_lifetime is not None:
            return round(self.max_lifetime * 1000)
        return self.max_retransmits or 0


@dataclass(frozen=True, slots=True)
class DcepOpen:
    channel_type: int
    priority: int
    reliability: int
    label: str
    protocol: str

    @property
    def delivery(self) -> Delivery:
        kind = self.channel_type & RELIABILITY_MASK
        return Delivery(
            not self.channel_type & UNORDERED,
            self.reliability if kind == LIMITED_RETRANSMISSIONS else None,
            self.reliability / 1000 if kind == LIMITED_LIFETIME else None,
        )


@dataclass(frozen=True, slots=True)
class DcepAck:
    pass


def parse_dcep_untrusted(data: bytes) -> DcepOpen | DcepAck:
    reader = Reader(data)
    kind = reader.u8()
    if kind == DcepMessageType.DATA_CHANNEL_ACK:
        return DcepAck()
    if kind != DcepMessageType.DATA_CHANNEL_OPEN:
        raise DecodeError("dcep_type")
    channel_type, priority, reliability = reader.u8(), reader.u16(), reader.u32()
    if channel_type & RELIABILITY_MASK > LIMITED_LIFETIME:
        raise DecodeError("dcep_channel_type")
    label_length, protocol_length = reader.u16(), reader.u16()
    label, protocol = reader.take(label_length), reader.take(protocol_length)
    reader.finish()
    try:
        return DcepOpen(channel_type, priority, reliability, label.decode(), protocol.decode())
    except UnicodeDecodeError:
        raise DecodeError("dcep_utf8") from None


def build_open(label: bytes, protocol: bytes, delivery: Delivery) -> bytes:
    writer = Writer()
    writer.u8(DcepMessageType.DATA_CHANNEL_OPEN)
    writer.u8(delivery.channel_type)
    writer.u16(0)  # priority: not used by any peer we know
    writer.u32(delivery.parameter)
    writer.u16(len(label))
    writer.u16(len(protocol))
    writer.put(label)
    writer.put(protocol)
    return writer.finish()


ACK = bytes([DcepMessageType.DATA_CHANNEL_ACK])

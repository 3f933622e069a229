"""Compound RTCP packets (RFC 3550 §6.1), reduced-size ones as well (RFC 5506).

1. A datagram is a row of packets, each with the common header; every length must fit.
2. Padding may stand only at the end of the last one (RFC 3550 §6.4.1).
3. The table READERS says who reads a type; what it does not name is kept raw.

That the first packet be a report (RFC 3550 §6.1) is not required: RFC 5506 allows any, and nothing here depends on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from protocol.errors import DecodeError
from protocol.rtp.rtcp.bye import Goodbye, read_goodbye_untrusted
from protocol.rtp.rtcp.codes import MAX_COUNT, RtcpType, frame_packet
from protocol.rtp.rtcp.feedback import Feedback, read_feedback_untrusted
from protocol.rtp.rtcp.report import (
    ReceiverReport,
    SenderReport,
    read_receiver_report_untrusted,
    read_sender_report_untrusted,
)
from protocol.rtp.rtcp.sdes import SourceDescription, read_source_description_untrusted
from protocol.wire import Reader

__all__ = ["RtcpPacket", "UnknownPacket", "parse_rtcp_untrusted", "serialize_rtcp"]


@dataclass(frozen=True, slots=True)
class UnknownPacket:
    """APP, XR and whatever comes after: the body as it was."""

    packet_type: int
    count: int
    body: bytes

    def serialize(self) -> bytes:
        return frame_packet(self.packet_type, self.count, self.body)


RtcpPacket: TypeAlias = SenderReport | ReceiverReport | SourceDescription | Goodbye | Feedback | UnknownPacket

_PADDING_BIT = 0x20
_HEADER_LENGTH = 4


def _read_unknown_untrusted(packet_type: int, count: int, reader: Reader) -> UnknownPacket:
    return UnknownPacket(packet_type, count, reader.rest())


READERS: tuple[tuple[int, Callable[[int, int, Reader], RtcpPacket]], ...] = (
    (RtcpType.SR, read_sender_report_untrusted),
    (RtcpType.RR, read_receiver_report_untrusted),
    (RtcpType.SDES, read_source_description_untrusted),
    (RtcpType.BYE, read_goodbye_untrusted),
    (RtcpType.RTPFB, read_feedback_untrusted),
    (RtcpType.PSFB, read_feedback_untrusted),
)
_READER_OF = dict(READERS)


def parse_rtcp_untrusted(data: bytes | memoryview) -> list[RtcpPacket]:
    """All packets of a datagram; DecodeError("rtcp_malformed") if any of them is broken, or if there is none."""
    packets: list[RtcpPacket] = []
    position, total = 0, len(data)
    try:
        while position < total or not packets:
            header = Reader(data, position)
            first, packet_type, length = header.u8(), header.u8(), 4 * header.u16()
            if first >> 6 != 2:
                raise DecodeError("version")
            start, position = position + _HEADER_LENGTH, position + _HEADER_LENGTH + length
            if position > total:
                raise DecodeError("truncated")
            end = position - _padding(data, start, position) if first & _PADDING_BIT else position
            read = _READER_OF.get(packet_type, _read_unknown_untrusted)
            packets.append(read(packet_type, first & MAX_COUNT, Reader(data, start, end)))
    except DecodeError as error:
        raise DecodeError("rtcp_malformed", str(error)) from None
    return packets


def _padding(data: bytes | memoryview, start: int, end: int) -> int:
    padding = data[end - 1] if end > start else 0
    if end != len(data) or padding == 0 or padding % 4 or padding > end - start:
        raise DecodeError("padding")
    return padding


def serialize_rtcp(packets: Iterable[RtcpPacket]) -> bytes:
    return b"".join(packet.serialize() for packet in packets)

"""Sender and receiver reports (RFC 3550 §6.4.1, §6.4.2).

SR: sender SSRC | NTP time (8) | RTP time (4) | packets (4) | octets (4) | blocks … | profile-specific extension
RR: sender SSRC | blocks … | profile-specific extension

Block, 24 bytes: SSRC | fraction lost (1), cumulative lost (3, signed) | extended highest sequence number
               | jitter | last SR (LSR) | delay since last SR (DLSR), 1/65536 s
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from protocol.rtp.rtcp.codes import RtcpType, frame_packet
from protocol.wire import Reader

__all__ = ["ReceiverReport", "ReportBlock", "SenderReport"]

_BLOCK = struct.Struct("!IIIIII")
_SENDER_INFO = struct.Struct("!QIII")


@dataclass(frozen=True, slots=True)
class ReportBlock:
    """What one receiver says of one source."""

    ssrc: int
    fraction_lost: int  # 1/256, of the last interval
    packets_lost: int  # since the start; signed, for duplicates count as received
    highest_sequence: int  # extended by its cycles, modulo 2^32
    jitter: int  # in units of the RTP timestamp
    last_sender_report: int  # short NTP time of the last SR, 0 for none
    delay_since_last_sender_report: int  # 1/65536 s

    def serialize(self) -> bytes:
        return _BLOCK.pack(
            self.ssrc,
            self.fraction_lost << 24 | self.packets_lost & 0xFFFFFF,
            self.highest_sequence,
            self.jitter,
            self.last_sender_report,
            self.delay_since_last_sender_report,
        )


@dataclass(frozen=True, slots=True)
class SenderReport:
    ssrc: int
    ntp_time: int
    rtp_time: int
    packet_count: int
    octet_count: int
    reports: tuple[ReportBlock, ...] = ()
    extension: bytes = b""

    def serialize(self) -> bytes:
        info = _SENDER_INFO.pack(self.ntp_time, self.rtp_time, self.packet_count, self.octet_count)
        body = self.ssrc.to_bytes(4, "big") + info + b"".join(block.serialize() for block in self.reports)
        return frame_packet(RtcpType.SR, len(self.reports), body + self.extension)


@dataclass(frozen=True, slots=True)
class ReceiverReport:
    ssrc: int
    reports: tuple[ReportBlock, ...] = ()
    extension: bytes = b""

    def serialize(self) -> bytes:
        body = self.ssrc.to_bytes(4, "big") + b"".join(block.serialize() for block in self.reports)
        return frame_packet(RtcpType.RR, len(self.reports), body + self.extension)


def _read_block(reader: Reader) -> ReportBlock:
    ssrc, loss, highest, jitter, last, delay = _BLOCK.unpack(reader.view(_BLOCK.size))
    lost = loss & 0xFFFFFF
    return ReportBlock(ssrc, loss >> 24, lost - 0x1000000 if lost >> 23 else lost, highest, jitter, last, delay)


def read_sender_report_untrusted(packet_type: int, count: int, reader: Reader) -> SenderReport:
    ssrc = reader.u32()
    ntp_time, rtp_time, packets, octets = _SENDER_INFO.unpack(reader.view(_SENDER_INFO.size))
    blocks = tuple(_read_block(reader) for _ in range(count))
    return SenderReport(ssrc, ntp_time, rtp_time, packets, octets, blocks, reader.rest())


def read_receiver_report_untrusted(packet_type: int, count: int, reader: Reader) -> ReceiverReport:
    ssrc = reader.u32()
    return ReceiverReport(ssrc, tuple(_read_block(reader) for _ in range(count)), reader.rest())

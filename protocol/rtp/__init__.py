"""RTP: packets, statistics, the reorder buffer and RTCP reporting (RFC 3550, RFC 8285). RTCP's wire form is in `.rtcp`."""

from __future__ import annotations

from protocol.rtp.arrivals import ArrivalLog
from protocol.rtp.breaker import CircuitBreaker, Trip
from protocol.rtp.extensions import Extensions
from protocol.rtp.jitter import Frame, FrameOrigin, Gap, JitterBuffer, JitterConfig, PathEstimate
from protocol.rtp.ntp import ntp_from_unix
from protocol.rtp.packet import (
    RTP_HEADER_LENGTH,
    RtpHeader,
    RtpPacket,
    parse_header_untrusted,
    parse_rtp_untrusted,
    serialize_rtp,
)
from protocol.rtp.reporter import ReceivedTotals, RtcpConfig, RtcpDatagram, RtcpReporter
from protocol.rtp.requests import RequestConfig, ResendRequests
from protocol.rtp.resend import ResendBuffer
from protocol.rtp.statistics import ReceiverStatistics, SenderStatistics

__all__ = [
    "RTP_HEADER_LENGTH",
    "ArrivalLog",
    "CircuitBreaker",
    "Extensions",
    "Frame",
    "FrameOrigin",
    "Gap",
    "JitterBuffer",
    "JitterConfig",
    "PathEstimate",
    "ReceivedTotals",
    "ReceiverStatistics",
    "RequestConfig",
    "ResendBuffer",
    "ResendRequests",
    "RtcpConfig",
    "RtcpDatagram",
    "RtcpReporter",
    "RtpHeader",
    "RtpPacket",
    "SenderStatistics",
    "Trip",
    "ntp_from_unix",
    "parse_header_untrusted",
    "parse_rtp_untrusted",
    "serialize_rtp",
]

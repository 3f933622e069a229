"""RTCP on the wire (RFC 3550 §6, RFC 4585 §6, RFC 5506)."""

from __future__ import annotations

from protocol.rtp.rtcp.bye import Goodbye
from protocol.rtp.rtcp.codes import RtcpType
from protocol.rtp.rtcp.compound import RtcpPacket, UnknownPacket, parse_rtcp_untrusted, serialize_rtcp
from protocol.rtp.rtcp.feedback import Feedback
from protocol.rtp.rtcp.nack import NACK_FORMAT, read_nack_untrusted, write_nack
from protocol.rtp.rtcp.report import ReceiverReport, ReportBlock, SenderReport
from protocol.rtp.rtcp.sdes import SdesChunk, SdesItemType, SourceDescription
from protocol.rtp.rtcp.transport_cc import TRANSPORT_CC_FORMAT, TransportFeedback, read_transport_feedback_untrusted

__all__ = [
    "NACK_FORMAT",
    "TRANSPORT_CC_FORMAT",
    "Feedback",
    "Goodbye",
    "ReceiverReport",
    "ReportBlock",
    "RtcpPacket",
    "RtcpType",
    "SdesChunk",
    "SdesItemType",
    "SenderReport",
    "SourceDescription",
    "TransportFeedback",
    "UnknownPacket",
    "parse_rtcp_untrusted",
    "read_nack_untrusted",
    "read_transport_feedback_untrusted",
    "serialize_rtcp",
    "write_nack",
]

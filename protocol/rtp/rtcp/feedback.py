"""Feedback (RFC 4585 §6.1): `format` stands in the count field; sender SSRC | media source SSRC | control information.

Which feedback it is (NACK is RTPFB 1, PLI is PSFB 1, …) is left to whoever acts on it.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocol.rtp.rtcp.codes import frame_packet
from protocol.wire import Reader

__all__ = ["Feedback"]


@dataclass(frozen=True, slots=True)
class Feedback:
    packet_type: int  # RTPFB or PSFB
    format: int
    sender_ssrc: int
    media_ssrc: int
    information: bytes = b""

    def serialize(self) -> bytes:
        body = self.sender_ssrc.to_bytes(4, "big") + self.media_ssrc.to_bytes(4, "big") + self.information
        return frame_packet(self.packet_type, self.format, body)


def read_feedback_untrusted(packet_type: int, count: int, reader: Reader) -> Feedback:
    return Feedback(packet_type, count, reader.u32(), reader.u32(), reader.rest())

"""Goodbye (RFC 3550 §6.6): the sources that leave, and perhaps a reason as `length (1) | text`, padded to a word."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.errors import LocalError
from protocol.rtp.rtcp.codes import RtcpType, frame_packet
from protocol.wire import Reader

__all__ = ["Goodbye"]


@dataclass(frozen=True, slots=True)
class Goodbye:
    sources: tuple[int, ...]
    reason: bytes = b""

    def serialize(self) -> bytes:
        body = b"".join(source.to_bytes(4, "big") for source in self.sources)
        if self.reason:
            if len(self.reason) > 255:
                raise LocalError("the reason of a BYE has at most 255 bytes")
            text = bytes((len(self.reason),)) + self.reason
            body += text + bytes(-len(text) % 4)
        return frame_packet(RtcpType.BYE, len(self.sources), body)


def read_goodbye_untrusted(packet_type: int, count: int, reader: Reader) -> Goodbye:
    sources = tuple(reader.u32() for _ in range(count))
    return Goodbye(sources, reader.opaque(1) if reader.remaining else b"")

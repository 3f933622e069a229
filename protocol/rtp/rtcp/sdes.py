"""Source description (RFC 3550 §6.5): per chunk an SSRC, items `type (1) | length (1) | text`, a null, padding to a word."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from protocol.errors import LocalError
from protocol.rtp.rtcp.codes import RtcpType, frame_packet
from protocol.wire import Reader, Writer

__all__ = ["SdesChunk", "SdesItemType", "SourceDescription"]


class SdesItemType(enum.IntEnum):
    END = 0
    CNAME = 1
    NAME = 2
    EMAIL = 3
    PHONE = 4
    LOC = 5
    TOOL = 6
    NOTE = 7
    PRIV = 8
    MID = 15  # RFC 9143 §15.1


@dataclass(frozen=True, slots=True)
class SdesChunk:
    ssrc: int
    items: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class SourceDescription:
    chunks: tuple[SdesChunk, ...]

    def serialize(self) -> bytes:
        writer = Writer()
        for chunk in self.chunks:
            writer.u32(chunk.ssrc)
            for kind, text in chunk.items:
                if kind == SdesItemType.END:
                    raise LocalError("an SDES item of type 0 ends the list")
                writer.u8(kind)
                writer.opaque(text, 1)
            writer.put(bytes(4 - len(writer) % 4))  # one to four: a null is always there (RFC 3550 §6.5)
        return frame_packet(RtcpType.SDES, len(self.chunks), writer.finish())

    def cname(self, ssrc: int) -> bytes | None:
        """The CNAME given for a source."""
        for chunk in self.chunks:
            if chunk.ssrc == ssrc:
                return next((text for kind, text in chunk.items if kind == SdesItemType.CNAME), None)
        return None


def read_source_description_untrusted(packet_type: int, count: int, reader: Reader) -> SourceDescription:
    chunks = []
    start = reader.position
    for _ in range(count):
        ssrc = reader.u32()
        items = []
        while (kind := reader.u8()) != SdesItemType.END:
            items.append((kind, reader.opaque(1)))
        reader.skip((start - reader.position) % 4)
        chunks.append(SdesChunk(ssrc, tuple(items)))
    return SourceDescription(tuple(chunks))

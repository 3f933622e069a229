"""use_srtp: RFC 5764 §4.1.1.

    struct { SRTPProtectionProfile profiles<2..2^16-1>; opaque srtp_mki<0..255>; } UseSRTPData;

We use no MKI: an offered one is answered by an empty one, which tells the client not to use it (§4.1.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from protocol.errors import DecodeError
from protocol.wire import Reader, Writer

__all__ = ["UseSrtp", "parse_use_srtp_untrusted"]


@dataclass(frozen=True, slots=True)
class UseSrtp:
    profiles: Sequence[int]
    mki: bytes = b""

    def encode(self) -> bytes:
        writer = Writer()
        with writer.block(2):
            for profile in self.profiles:
                writer.u16(profile)
        writer.opaque(self.mki, 1)
        return writer.finish()


def parse_use_srtp_untrusted(data: bytes) -> UseSrtp:
    reader = Reader(data)
    block = reader.block(2)
    if not block.remaining or block.remaining % 2:
        raise DecodeError("extension_malformed")
    profiles = tuple(block.u16() for _ in range(block.remaining // 2))
    mki = reader.opaque(1)
    reader.finish()
    return UseSrtp(profiles, mki)

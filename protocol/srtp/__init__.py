"""SRTP and SRTCP (RFC 3711, RFC 7714) under keys from DTLS (RFC 5764)."""

from __future__ import annotations

from protocol.srtp.profiles import SERVER_PREFERENCE, SrtpProfile, profile_lengths
from protocol.srtp.transport import MAX_PLAIN_LENGTH, MAX_SOURCES, SrtpTransport

__all__ = [
    "MAX_PLAIN_LENGTH",
    "MAX_SOURCES",
    "SERVER_PREFERENCE",
    "SrtpProfile",
    "SrtpTransport",
    "profile_lengths",
]

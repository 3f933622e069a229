"""SRTP and SRTCP (RFC 3711, RFC 7714) under keys from DTLS (RFC 5764)."""

from __future__ import annotations

from protocol.srtp.library import RTCP_TRAILER, RTP_TRAILER, Arena, SrtpLibrary, library_named
from protocol.srtp.profiles import SERVER_PREFERENCE, SrtpProfile, profile_lengths
from protocol.srtp.transport import MAX_PLAIN_LENGTH, MAX_SOURCES, SrtpTransport

__all__ = [
    "MAX_PLAIN_LENGTH",
    "MAX_SOURCES",
    "RTCP_TRAILER",
    "RTP_TRAILER",
    "SERVER_PREFERENCE",
    "Arena",
    "SrtpLibrary",
    "SrtpProfile",
    "SrtpTransport",
    "library_named",
    "profile_lengths",
]

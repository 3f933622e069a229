"""SRTP and SRTCP (RFC 3711, RFC 7714) under keys from DTLS (RFC 5764)."""

from __future__ import annotations

from protocol.srtp.profiles import SERVER_PREFERENCE, SrtpProfile, profile_lengths

__all__ = ["SERVER_PREFERENCE", "SrtpProfile", "profile_lengths"]

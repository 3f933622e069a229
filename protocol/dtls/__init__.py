"""DTLS with SRTP keys: RFC 6347, RFC 5246, RFC 5764."""

from __future__ import annotations

from protocol.dtls.fingerprint import Fingerprint

__all__ = ["Fingerprint"]

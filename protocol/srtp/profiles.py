"""SRTP protection profiles as DTLS negotiates them (RFC 5764 §4.1.2, RFC 7714 §14.2): constants only.

https://www.iana.org/assignments/srtp-protection/
"""

from __future__ import annotations

import enum

from protocol.errors import LocalError

__all__ = ["SERVER_PREFERENCE", "SrtpProfile", "profile_lengths"]


class SrtpProfile(enum.IntEnum):
    SRTP_AES128_CM_HMAC_SHA1_80 = 1
    SRTP_AEAD_AES_128_GCM = 7
    SRTP_AEAD_AES_256_GCM = 8


_LENGTHS: dict[int, tuple[int, int]] = {
    SrtpProfile.SRTP_AES128_CM_HMAC_SHA1_80: (16, 14),  # RFC 5764 §4.1.2
    SrtpProfile.SRTP_AEAD_AES_128_GCM: (16, 12),  # RFC 7714 §12
    SrtpProfile.SRTP_AEAD_AES_256_GCM: (32, 12),
}

# AES-128-GCM first: both browsers offer it and it costs us least. The mandatory profile (RFC 8827 §6.5) comes last.
SERVER_PREFERENCE: tuple[SrtpProfile, ...] = (
    SrtpProfile.SRTP_AEAD_AES_128_GCM,
    SrtpProfile.SRTP_AEAD_AES_256_GCM,
    SrtpProfile.SRTP_AES128_CM_HMAC_SHA1_80,
)


def profile_lengths(profile: int) -> tuple[int, int]:
    """(master key length, master salt length) in bytes of a profile we know."""
    try:
        return _LENGTHS[profile]
    except KeyError:
        raise LocalError(f"SRTP profile {profile} is not supported") from None

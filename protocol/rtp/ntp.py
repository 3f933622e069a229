"""NTP time as RTCP carries it (RFC 3550 §4): seconds since 1900 as a 32.32 fixed-point number; 16.16 in its short form."""

from __future__ import annotations

__all__ = ["ntp_from_unix", "short_ntp", "short_to_seconds"]

_UNIX_EPOCH = 2_208_988_800  # seconds from 1900-01-01 to 1970-01-01
_MASK_64 = (1 << 64) - 1


def ntp_from_unix(seconds: float) -> int:
    """A Unix time → 64-bit NTP time; wraps in 2036, as RFC 3550 §4 allows."""
    return int((seconds + _UNIX_EPOCH) * (1 << 32)) & _MASK_64


def short_ntp(ntp: int) -> int:
    """The middle 32 bits: seconds and 1/65536 seconds, wraps every 18 hours."""
    return ntp >> 16 & 0xFFFFFFFF


def short_to_seconds(difference: int) -> float:
    """A difference of two short NTP times, modulo 2^32, read as a signed number of seconds."""
    difference &= 0xFFFFFFFF
    return (difference - (1 << 32) if difference >> 31 else difference) / 65536

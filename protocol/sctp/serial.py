"""Serial numbers that wrap (RFC 1982; RFC 9260 §1.6), made easy: unwrap once at the edge, then compare plain integers.

Inside this package a TSN or SSN is an integer that only grows; `& TSN_MASK` happens where it goes on the wire.
"""

from __future__ import annotations

__all__ = ["SSN_MASK", "TSN_MASK", "unwrap_ssn", "unwrap_tsn"]

TSN_MASK = 0xFFFFFFFF
SSN_MASK = 0xFFFF


def unwrap_tsn(value: int, reference: int) -> int:
    """The integer congruent to the 32-bit `value` that lies nearest to `reference`."""
    return reference + ((value - reference + 0x80000000) & TSN_MASK) - 0x80000000


def unwrap_ssn(value: int, reference: int) -> int:
    """The integer congruent to the 16-bit `value` that lies nearest to `reference`."""
    return reference + ((value - reference + 0x8000) & SSN_MASK) - 0x8000

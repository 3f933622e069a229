"""The USERNAME of a Binding request, read without building anything: all that a router needs to know.

USERNAME is not always the first attribute (some clients put it last): the attributes are walked, bounded, up to the
first integrity attribute, behind which nothing is authenticated (RFC 8489 §14.5).
"""

from __future__ import annotations

from struct import Struct

from protocol.errors import DecodeError

__all__ = ["peek_username_untrusted"]

# Specification constants
_BINDING_REQUEST_COOKIE = (0x0001, 0x2112A442)
_USERNAME = 0x0006
_INTEGRITY = (0x0008, 0x001C)
_USERNAME_MAXIMUM = 512  # RFC 5389 §15.3; RFC 8489 §14.3 says 508

# Implementation constants
_MAX_ATTRIBUTES = 32

_HEADER = Struct("!HHI").unpack_from
_ATTRIBUTE = Struct("!HH").unpack_from


def peek_username_untrusted(data: bytes | memoryview) -> bytes:
    """The USERNAME of the Binding request `data`; DecodeError for anything else, also for other STUN messages."""
    end = len(data)
    if end < 28:
        raise DecodeError("stun_truncated")
    kind, length, cookie = _HEADER(data)
    if (kind, cookie) != _BINDING_REQUEST_COOKIE:
        raise DecodeError("stun_not_request" if cookie == _BINDING_REQUEST_COOKIE[1] else "stun_cookie")
    if length + 20 != end or length & 3:
        raise DecodeError("stun_length")
    position = 20
    for _ in range(_MAX_ATTRIBUTES):
        kind, length = _ATTRIBUTE(data, position)
        if kind == _USERNAME:
            if length > _USERNAME_MAXIMUM or position + 4 + length > end:
                raise DecodeError("stun_username")
            return bytes(data[position + 4 : position + 4 + length])
        position += 4 + ((length + 3) & ~3)
        if kind in _INTEGRITY or position + 4 > end:
            break
    raise DecodeError("stun_username")

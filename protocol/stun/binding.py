"""Binding messages for ICE, on the short way: one pass over the bytes, no Message built (RFC 8445 §7, RFC 8489 §9.1).

1. `scan_binding_untrusted` walks the attributes once and notes what ICE needs, and where the integrity attribute is.
   FINGERPRINT is demanded (RFC 8445 §7.1: "MUST use the FINGERPRINT mechanism") and judged here.
2. `authenticate` judges the integrity attribute under a password.
3. `binding_success`, `binding_error` and `binding_request` write the answers and our own checks.

MESSAGE-INTEGRITY-SHA256 (RFC 8489 §14.6) is understood: where both kinds are present the stronger one decides, and
the answer carries the kind that decided (§9.1.3).
"""

from __future__ import annotations

import binascii
import hmac
from dataclasses import dataclass
from struct import Struct
from typing import Literal

from protocol.address import TransportAddress
from protocol.errors import DecodeError
from protocol.stun.attributes import COOKIE, FIRST_OPTIONAL
from protocol.stun.integrity import (
    FINGERPRINT_XOR,
    SHA256_LENGTH_MAXIMUM,
    SHA256_LENGTH_MINIMUM,
    message_integrity,
    message_integrity_sha256,
)

__all__ = [
    "Binding",
    "IntegrityKind",
    "authenticate",
    "binding_error",
    "binding_request",
    "binding_success",
    "scan_binding_untrusted",
]

# Specification constants (RFC 8489 §18.3, RFC 8445 §16.1)
REQUEST, INDICATION, SUCCESS, ERROR = 0x0001, 0x0011, 0x0101, 0x0111
_USERNAME, _INTEGRITY, _ERROR_CODE, _UNKNOWN_ATTRIBUTES = 0x0006, 0x0008, 0x0009, 0x000A
_INTEGRITY_SHA256, _XOR_MAPPED_ADDRESS, _PRIORITY, _USE_CANDIDATE = 0x001C, 0x0020, 0x0024, 0x0025
_FINGERPRINT, _ICE_CONTROLLED, _ICE_CONTROLLING = 0x8028, 0x8029, 0x802A
_NOMINATION = 0xC001  # draft-thatcher-ice-renomination, as libwebrtc writes it
# Comprehension-required types that may stand in a Binding message and need no action of ours: MAPPED-ADDRESS, REALM, NONCE.
_HARMLESS = frozenset((0x0001, 0x0014, 0x0015))
_USERNAME_MAXIMUM = 512  # RFC 5389 §15.3; RFC 8489 §14.3 says 508

# Implementation constants
_MAX_ATTRIBUTES = 64
_MAX_UNKNOWN = 8  # types that a 420 answer lists

_COOKIE = COOKIE.to_bytes(4, "big")
_HEADER = Struct("!HHI12s")
_ATTRIBUTE = Struct("!HH")
_U32 = Struct("!I")
_U64 = Struct("!Q")
_SUCCESS_HEAD = {  # by the length of a transport address: header up to the cookie, and the attribute up to the port
    6: (bytes.fromhex("010100242112a442"), bytes.fromhex("002000080001")),
    18: (bytes.fromhex("010100302112a442"), bytes.fromhex("002000140002")),
}

IntegrityKind = Literal["sha1", "sha256"]


@dataclass(slots=True)
class Binding:
    """What ICE needs to know of one Binding message. Nothing in it is authentic before `authenticate` said so."""

    kind: int  # REQUEST, INDICATION, SUCCESS or ERROR
    transaction_id: bytes
    username: bytes | None = None
    priority: int | None = None
    use_candidate: bool = False
    nomination: int | None = None
    controlling: bool | None = None  # the role that the sender claims; None if it claims none
    tie_breaker: int = 0
    error_code: int | None = None
    mapped: bytes | None = None  # XOR-MAPPED-ADDRESS as a transport address
    unknown: tuple[int, ...] = ()  # comprehension-required types that we do not understand
    integrity: int = 0  # where MESSAGE-INTEGRITY starts; 0 if there is none
    integrity_sha256: int = 0  # the same of MESSAGE-INTEGRITY-SHA256

    @property
    def integrity_kind(self) -> IntegrityKind:
        return "sha256" if self.integrity_sha256 else "sha1"


def scan_binding_untrusted(data: bytes) -> Binding:
    """The Binding message in `data`; DecodeError for anything else and for a missing or wrong FINGERPRINT."""
    end = len(data)
    if end < 28:
        raise DecodeError("stun_truncated")
    kind, length, cookie, transaction_id = _HEADER.unpack_from(data)
    if cookie != COOKIE:
        raise DecodeError("stun_cookie")
    if length + 20 != end or length & 3:
        raise DecodeError("stun_length")
    if kind & ~0x0110 != REQUEST:
        raise DecodeError("stun_method")
    # FINGERPRINT first: it is cheap, and it must be the last attribute, so its place is known (RFC 8489 §14.7).
    last = end - 8
    if data[last : last + 4] != b"\x80\x28\x00\x04":
        raise DecodeError("stun_fingerprint_missing")
    if binascii.crc32(data[:last]) ^ FINGERPRINT_XOR != _U32.unpack_from(data, end - 4)[0]:
        raise DecodeError("stun_fingerprint")
    binding = Binding(kind, transaction_id)
    position, count = 20, 0
    while position < last:
        kind, length = _ATTRIBUTE.unpack_from(data, position)
        start = position + 4
        stop = start + length
        count += 1
        if stop > last:
            raise DecodeError("stun_truncated")
        if count > _MAX_ATTRIBUTES:
            raise DecodeError("stun_attributes")
        if kind == _INTEGRITY:
            if length != 20:
                raise DecodeError("stun_integrity_length")
            if not binding.integrity and not binding.integrity_sha256:
                binding.integrity = position
        elif kind == _INTEGRITY_SHA256:
            if not SHA256_LENGTH_MINIMUM <= length <= SHA256_LENGTH_MAXIMUM or length & 3:
                raise DecodeError("stun_integrity_length")
            binding.integrity_sha256 = binding.integrity_sha256 or position
        elif not binding.integrity and not binding.integrity_sha256:  # else unauthenticated: ignored (§14.5)
            _note_untrusted(binding, kind, data[start:stop])
        position = stop + (-length & 3)
    return binding


def _note_untrusted(binding: Binding, kind: int, value: bytes) -> None:
    """One attribute in front of the integrity attribute. Of repeated ones the first counts (RFC 8489 §14)."""
    if kind == _USERNAME:
        if len(value) > _USERNAME_MAXIMUM:
            raise DecodeError("stun_username")
        if binding.username is None:
            binding.username = value
    elif kind == _PRIORITY:
        if binding.priority is None:
            binding.priority = _number_untrusted(_U32, value)
    elif kind in (_ICE_CONTROLLING, _ICE_CONTROLLED):
        if binding.controlling is None:
            binding.controlling = kind == _ICE_CONTROLLING
            binding.tie_breaker = _number_untrusted(_U64, value)
    elif kind == _USE_CANDIDATE:
        binding.use_candidate = True
    elif kind == _XOR_MAPPED_ADDRESS:
        if binding.mapped is None:
            binding.mapped = _mapped_untrusted(value, binding.transaction_id)
    elif kind == _ERROR_CODE:
        if len(value) < 4:
            raise DecodeError("stun_attribute", "error code")
        if binding.error_code is None:
            binding.error_code = (value[2] & 7) * 100 + value[3]
    elif kind == _NOMINATION:
        if binding.nomination is None:
            binding.nomination = _number_untrusted(_U32, value)
    elif (
        kind < FIRST_OPTIONAL
        and kind not in _HARMLESS
        and kind != _UNKNOWN_ATTRIBUTES
        and len(binding.unknown) < _MAX_UNKNOWN
    ):
        binding.unknown += (kind,)


def _number_untrusted(layout: Struct, value: bytes) -> int:
    if len(value) != layout.size:
        raise DecodeError("stun_attribute", "number")
    number: int = layout.unpack(value)[0]
    return number


def _mapped_untrusted(value: bytes, transaction_id: bytes) -> bytes:
    if (len(value), value[1:2]) not in ((8, b"\x01"), (20, b"\x02")):
        raise DecodeError("stun_attribute", "address")
    return _xor(value[2:], transaction_id)


def _xor(address: bytes, transaction_id: bytes) -> bytes:
    """A transport address under its STUN mask; its own inverse (RFC 8489 §14.2)."""
    size = len(address)
    mask = (_COOKIE[:2] + _COOKIE + transaction_id)[:size]
    return (int.from_bytes(address, "big") ^ int.from_bytes(mask, "big")).to_bytes(size, "big")


def authenticate(data: bytes, binding: Binding, key: bytes) -> bool:
    """True if `data`, scanned as `binding`, carries an integrity attribute that is right under `key`."""
    if at := binding.integrity_sha256:
        length = _ATTRIBUTE.unpack_from(data, at)[1]
        return hmac.compare_digest(data[at + 4 : at + 4 + length], message_integrity_sha256(data[:at], key, length))
    if at := binding.integrity:
        return hmac.compare_digest(data[at + 4 : at + 24], message_integrity(data[:at], key))
    return False


def _seal(before: bytes, key: bytes | None, integrity: IntegrityKind) -> bytes:
    """`before` (its length field does not matter) with integrity attribute and FINGERPRINT."""
    if key is not None:
        if integrity == "sha256":
            before += b"\x00\x1c\x00\x20" + message_integrity_sha256(before, key)
        else:
            before += b"\x00\x08\x00\x14" + message_integrity(before, key)
    before = before[:2] + (len(before) - 12).to_bytes(2, "big") + before[4:]
    return before + b"\x80\x28\x00\x04" + _U32.pack(binascii.crc32(before) ^ FINGERPRINT_XOR)


def binding_success(
    transaction_id: bytes, address: TransportAddress, key: bytes, integrity: IntegrityKind = "sha1"
) -> bytes:
    """The answer to a check that came from `address`: 64 bytes for IPv4, 76 for IPv6 (SHA-1)."""
    head, attribute = _SUCCESS_HEAD[len(address)]
    before = head + transaction_id + attribute + _xor(address, transaction_id)
    return _seal(before, key, integrity)


def binding_error(
    transaction_id: bytes,
    code: int,
    reason: bytes,
    key: bytes | None,
    integrity: IntegrityKind = "sha1",
    unknown: tuple[int, ...] = (),
) -> bytes:
    """An error answer; without `key` it carries no integrity attribute (RFC 8489 §9.1.3, 400 and 401)."""
    before = _HEADER.pack(ERROR, 0, COOKIE, transaction_id)
    value = bytes((0, 0, code // 100, code % 100)) + reason
    before += _ATTRIBUTE.pack(_ERROR_CODE, len(value)) + value + bytes(-len(value) & 3)
    if unknown:
        types = b"".join(kind.to_bytes(2, "big") for kind in unknown)
        before += _ATTRIBUTE.pack(_UNKNOWN_ATTRIBUTES, len(types)) + types + bytes(-len(types) & 3)
    return _seal(before, key, integrity)


def binding_request(
    transaction_id: bytes,
    username: bytes,
    key: bytes,
    *,
    priority: int,
    controlling: bool,
    tie_breaker: int,
    use_candidate: bool = False,
    nomination: int | None = None,
) -> bytes:
    """A connectivity check (RFC 8445 §7.2.2), with the value of a renomination if there is one."""
    before = _HEADER.pack(REQUEST, 0, COOKIE, transaction_id)
    before += _ATTRIBUTE.pack(_USERNAME, len(username)) + username + bytes(-len(username) & 3)
    before += _ATTRIBUTE.pack(_ICE_CONTROLLING if controlling else _ICE_CONTROLLED, 8) + _U64.pack(tie_breaker)
    if use_candidate:
        before += _ATTRIBUTE.pack(_USE_CANDIDATE, 0)
    if nomination is not None:
        before += _ATTRIBUTE.pack(_NOMINATION, 4) + _U32.pack(nomination)
    before += _ATTRIBUTE.pack(_PRIORITY, 4) + _U32.pack(priority)
    return _seal(before, key, "sha1")

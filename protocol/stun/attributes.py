"""STUN attributes: type, name, and how the value is packed (RFC 8489 §14, RFC 8445 §16.1).

One entry of ATTRIBUTES is one attribute. Addresses are `(host, port)`, numbers are ints, ERROR-CODE is
`(code, reason)`: the values that aioice 0.13 uses, so that the two codecs can be held against each other.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from typing import Any

from protocol.errors import DecodeError, LocalError

__all__ = ["ATTRIBUTES", "ATTRIBUTES_BY_NAME", "ATTRIBUTES_BY_TYPE", "Attribute", "attribute_type"]

# Specification constants
COOKIE = 0x2112A442
FIRST_OPTIONAL = 0x8000  # RFC 8489 §14: types from here on may be ignored when they are not understood
_FAMILY_IPV4 = 1
_FAMILY_IPV6 = 2
_REASON_LENGTH_MAXIMUM = 763  # RFC 8489 §14.8

_COOKIE = COOKIE.to_bytes(4, "big")
_ADDRESS_HEAD = Struct("!BB")
_ERROR_HEAD = Struct("!HBB")
_U16 = Struct("!H")
_U32 = Struct("!I")
_U64 = Struct("!Q")


@dataclass(frozen=True, slots=True)
class Attribute:
    """How one attribute is written; `pack` and `unpack` get the transaction id, which only XOR-ed addresses use."""

    type: int
    name: str
    pack: Callable[[Any, bytes], bytes]
    unpack: Callable[[bytes, bytes], Any]


def attribute_type(name: str) -> int:
    """The type of a known name, or of the name that an unknown attribute was given (`0xC057`)."""
    if (attribute := ATTRIBUTES_BY_NAME.get(name)) is not None:
        return attribute.type
    if name.startswith("0x"):
        return int(name, 16)
    raise LocalError(f"no STUN attribute is called {name}")


def _pack_address(value: tuple[str, int], _: bytes) -> bytes:
    ip = ipaddress.ip_address(value[0])
    family = _FAMILY_IPV4 if ip.version == 4 else _FAMILY_IPV6
    return _ADDRESS_HEAD.pack(0, family) + _U16.pack(value[1]) + ip.packed


def _unpack_address_untrusted(data: bytes, _: bytes) -> tuple[str, int]:
    if len(data) == 8 and data[1] == _FAMILY_IPV4:
        return str(ipaddress.IPv4Address(data[4:])), _U16.unpack_from(data, 2)[0]
    if len(data) == 20 and data[1] == _FAMILY_IPV6:
        return str(ipaddress.IPv6Address(data[4:])), _U16.unpack_from(data, 2)[0]
    raise DecodeError("stun_attribute", "address")


def _xor(data: bytes, transaction_id: bytes) -> bytes:
    # RFC 8489 §14.2: the port under the cookie's first half, the address under cookie and transaction id.
    pad = _COOKIE[:2] + _COOKIE + transaction_id
    return data[:2] + bytes(a ^ b for a, b in zip(data[2:], pad))


def _pack_xor_address(value: tuple[str, int], transaction_id: bytes) -> bytes:
    return _xor(_pack_address(value, transaction_id), transaction_id)


def _unpack_xor_address_untrusted(data: bytes, transaction_id: bytes) -> tuple[str, int]:
    if len(data) not in (8, 20):
        raise DecodeError("stun_attribute", "address")
    return _unpack_address_untrusted(_xor(data, transaction_id), transaction_id)


def _pack_bytes(value: bytes, _: bytes) -> bytes:
    return value


def _unpack_bytes_untrusted(data: bytes, _: bytes) -> bytes:
    return data


def _pack_error_code(value: tuple[int, str], _: bytes) -> bytes:
    return _ERROR_HEAD.pack(0, value[0] // 100, value[0] % 100) + value[1].encode()


def _unpack_error_code_untrusted(data: bytes, _: bytes) -> tuple[int, str]:
    if not 4 <= len(data) <= 4 + _REASON_LENGTH_MAXIMUM:
        raise DecodeError("stun_attribute", "error code")
    _reserved, hundreds, rest = _ERROR_HEAD.unpack_from(data)
    return (hundreds & 7) * 100 + rest, _decode_untrusted(data[4:])


def _pack_none(_value: None, _: bytes) -> bytes:
    return b""


def _unpack_none_untrusted(_data: bytes, _: bytes) -> None:
    return None


def _pack_string(value: str, _: bytes) -> bytes:
    return value.encode()


def _decode_untrusted(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise DecodeError("stun_attribute", "not UTF-8") from None


def _unpack_string_untrusted(data: bytes, _: bytes) -> str:
    return _decode_untrusted(data)


def _fixed(layout: Struct, padding: bytes = b"") -> tuple[Callable[[int, bytes], bytes], Callable[[bytes, bytes], int]]:
    size = layout.size + len(padding)

    def pack(value: int, _: bytes) -> bytes:
        return layout.pack(value) + padding

    def unpack_untrusted(data: bytes, _: bytes) -> int:
        if len(data) != size:
            raise DecodeError("stun_attribute", "number")
        value: int = layout.unpack_from(data)[0]
        return value

    return pack, unpack_untrusted


def _pack_types(value: tuple[int, ...], _: bytes) -> bytes:
    return b"".join(map(_U16.pack, value))


def _unpack_types_untrusted(data: bytes, _: bytes) -> tuple[int, ...]:
    if len(data) % 2:
        raise DecodeError("stun_attribute", "unknown attributes")
    return tuple(value for (value,) in _U16.iter_unpack(data))


_ADDRESS = (_pack_address, _unpack_address_untrusted)
_XOR_ADDRESS = (_pack_xor_address, _unpack_xor_address_untrusted)
_BYTES = (_pack_bytes, _unpack_bytes_untrusted)
_STRING = (_pack_string, _unpack_string_untrusted)
_NONE = (_pack_none, _unpack_none_untrusted)
_UNSIGNED = _fixed(_U32)
_UNSIGNED_64 = _fixed(_U64)
_UNSIGNED_SHORT = _fixed(_U16, b"\0\0")

# IANA "STUN Attributes", https://www.iana.org/assignments/stun-parameters
ATTRIBUTES = (
    Attribute(0x0001, "MAPPED-ADDRESS", *_ADDRESS),
    Attribute(0x0003, "CHANGE-REQUEST", *_UNSIGNED),
    Attribute(0x0004, "SOURCE-ADDRESS", *_ADDRESS),
    Attribute(0x0005, "CHANGED-ADDRESS", *_ADDRESS),
    Attribute(0x0006, "USERNAME", *_STRING),
    Attribute(0x0008, "MESSAGE-INTEGRITY", *_BYTES),
    Attribute(0x0009, "ERROR-CODE", _pack_error_code, _unpack_error_code_untrusted),
    Attribute(0x000A, "UNKNOWN-ATTRIBUTES", _pack_types, _unpack_types_untrusted),
    Attribute(0x000C, "CHANNEL-NUMBER", *_UNSIGNED_SHORT),
    Attribute(0x000D, "LIFETIME", *_UNSIGNED),
    Attribute(0x0012, "XOR-PEER-ADDRESS", *_XOR_ADDRESS),
    Attribute(0x0013, "DATA", *_BYTES),
    Attribute(0x0014, "REALM", *_STRING),
    Attribute(0x0015, "NONCE", *_BYTES),
    Attribute(0x0016, "XOR-RELAYED-ADDRESS", *_XOR_ADDRESS),
    Attribute(0x0019, "REQUESTED-TRANSPORT", *_UNSIGNED),
    Attribute(0x001C, "MESSAGE-INTEGRITY-SHA256", *_BYTES),
    Attribute(0x001E, "USERHASH", *_BYTES),
    Attribute(0x0020, "XOR-MAPPED-ADDRESS", *_XOR_ADDRESS),
    Attribute(0x0024, "PRIORITY", *_UNSIGNED),
    Attribute(0x0025, "USE-CANDIDATE", *_NONE),
    Attribute(0x8022, "SOFTWARE", *_STRING),
    Attribute(0x8028, "FINGERPRINT", *_UNSIGNED),
    Attribute(0x8029, "ICE-CONTROLLED", *_UNSIGNED_64),
    Attribute(0x802A, "ICE-CONTROLLING", *_UNSIGNED_64),
    Attribute(0x802B, "RESPONSE-ORIGIN", *_ADDRESS),
    Attribute(0x802C, "OTHER-ADDRESS", *_ADDRESS),
)

ATTRIBUTES_BY_TYPE = {attribute.type: attribute for attribute in ATTRIBUTES}
ATTRIBUTES_BY_NAME = {attribute.name: attribute for attribute in ATTRIBUTES}

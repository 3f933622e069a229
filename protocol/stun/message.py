"""STUN messages of any method (RFC 8489 §5, §6), in the shape of aioice 0.13 and byte-equal to it.

     0                   1                   2                   3
    |0 0|     message type (14)     |         message length        |
    |                  magic cookie  0x2112A442                     |
    |                  transaction id (96 bits)                     |
    |  attribute type               |  length (without padding)     |  value, padded to 4 bytes ...

1. `parse_message_untrusted` checks the frame (two zero bits, length, cookie) and unpacks attributes in their order.
2. Of attributes that appear twice the first counts (RFC 8489 §14). Unknown ones are kept as bytes under a name made
   of their type, `0xC057`.
3. What follows an integrity attribute is not authenticated and is ignored, except MESSAGE-INTEGRITY-SHA256 and
   FINGERPRINT (RFC 8489 §14.5).
4. FINGERPRINT, where present, must be last and right.

RFC 3489 messages, which have no cookie, are refused: no peer of ours is that old, and without the cookie a message
cannot be told from something else. Binding checks in a call take the shorter way of `protocol.stun.binding`.
"""

from __future__ import annotations

import enum
import hmac
from struct import Struct
from typing import Any

from protocol.errors import DecodeError, LocalError
from protocol.stun.attributes import ATTRIBUTES_BY_NAME, ATTRIBUTES_BY_TYPE, COOKIE, attribute_type
from protocol.stun.integrity import (
    HEADER_LENGTH,
    SHA256_LENGTH_MAXIMUM,
    SHA256_LENGTH_MINIMUM,
    message_fingerprint,
    message_integrity,
    message_integrity_sha256,
)
from protocol.wire import Entropy

__all__ = ["Class", "Message", "Method", "parse_message_untrusted"]

# Specification constants
TRANSACTION_ID_LENGTH = 12
_CLASS_MASK = 0x0110
_METHOD_MASK = 0x3EEF

# Implementation constants
MAX_ATTRIBUTES = 64

_HEADER = Struct("!HHI12s")
_ATTRIBUTE = Struct("!HH")


class Class(enum.IntEnum):
    REQUEST = 0x000
    INDICATION = 0x010
    RESPONSE = 0x100
    ERROR = 0x110


class Method(enum.IntEnum):
    BINDING = 0x1
    SHARED_SECRET = 0x2
    ALLOCATE = 0x3
    REFRESH = 0x4
    SEND = 0x6
    DATA = 0x7
    CREATE_PERMISSION = 0x8
    CHANNEL_BIND = 0x9


class Message:
    """A STUN message; `attributes` is ordered by insertion, and is written in that order."""

    __slots__ = ("_integrity_data", "_sha256_data", "attributes", "message_class", "message_method", "transaction_id")

    def __init__(
        self,
        message_method: Method,
        message_class: Class,
        transaction_id: bytes | None = None,
        attributes: dict[str, Any] | None = None,
        *,
        entropy: Entropy | None = None,
    ) -> None:
        if transaction_id is None:
            if entropy is None:
                raise LocalError("a STUN message needs a transaction id, or entropy to draw one from")
            transaction_id = entropy(TRANSACTION_ID_LENGTH)
        if len(transaction_id) != TRANSACTION_ID_LENGTH:
            raise LocalError("a STUN transaction id has 12 bytes")
        self.message_method = message_method
        self.message_class = message_class
        self.transaction_id = transaction_id
        self.attributes = attributes or {}
        self._integrity_data: bytes | None = None  # what MESSAGE-INTEGRITY covers
        self._sha256_data: bytes | None = None  # what MESSAGE-INTEGRITY-SHA256 covers

    def add_message_integrity(self, key: bytes) -> None:
        """Add MESSAGE-INTEGRITY and FINGERPRINT; the last step before sending."""
        self._drop("MESSAGE-INTEGRITY", "MESSAGE-INTEGRITY-SHA256", "FINGERPRINT")
        self._integrity_data = bytes(self)
        self.attributes["MESSAGE-INTEGRITY"] = message_integrity(self._integrity_data, key)
        self.add_fingerprint()

    def add_message_integrity_sha256(self, key: bytes) -> None:
        """Add MESSAGE-INTEGRITY-SHA256, after a MESSAGE-INTEGRITY if there is one, and FINGERPRINT."""
        self._drop("MESSAGE-INTEGRITY-SHA256", "FINGERPRINT")
        self._sha256_data = bytes(self)
        self.attributes["MESSAGE-INTEGRITY-SHA256"] = message_integrity_sha256(self._sha256_data, key)
        self.add_fingerprint()

    def add_fingerprint(self) -> None:
        self._drop("FINGERPRINT")
        self.attributes["FINGERPRINT"] = message_fingerprint(bytes(self))

    def check_message_integrity(self, key: bytes) -> bool:
        """True if the message is authentic; without an integrity attribute it is not.

        Of both kinds the stronger decides (RFC 8489 §9.1.3).
        """
        if self._sha256_data is not None:
            value = self.attributes["MESSAGE-INTEGRITY-SHA256"]
            return hmac.compare_digest(value, message_integrity_sha256(self._sha256_data, key, len(value)))
        if self._integrity_data is not None:
            value = self.attributes["MESSAGE-INTEGRITY"]
            return hmac.compare_digest(value, message_integrity(self._integrity_data, key))
        return False

    @property
    def error_code(self) -> int | None:
        value = self.attributes.get("ERROR-CODE")
        return None if value is None else value[0]

    def __bytes__(self) -> bytes:
        parts = []
        for name, value in self.attributes.items():
            known = ATTRIBUTES_BY_NAME.get(name)
            packed: bytes = value if known is None else known.pack(value, self.transaction_id)
            parts.append(_ATTRIBUTE.pack(attribute_type(name), len(packed)) + packed + bytes(-len(packed) % 4))
        body = b"".join(parts)
        return _HEADER.pack(self.message_method | self.message_class, len(body), COOKIE, self.transaction_id) + body

    def __repr__(self) -> str:
        return (
            f"Message(message_method={self.message_method!s}, message_class={self.message_class!s}, "
            f"transaction_id={self.transaction_id.hex()}, attributes={self.attributes})"
        )

    def _drop(self, *names: str) -> None:
        for name in names:
            self.attributes.pop(name, None)


def parse_message_untrusted(data: bytes) -> Message:
    """A message from the network. Integrity is judged separately, by `check_message_integrity`."""
    if len(data) < HEADER_LENGTH:
        raise DecodeError("stun_truncated")
    message_type, length, cookie, transaction_id = _HEADER.unpack_from(data)
    if message_type >> 14 or cookie != COOKIE:
        raise DecodeError("stun_cookie")
    if length % 4 or length + HEADER_LENGTH != len(data):
        raise DecodeError("stun_length")
    try:
        method = Method(message_type & _METHOD_MASK)
    except ValueError:
        raise DecodeError("stun_method") from None
    message = Message(method, Class(message_type & _CLASS_MASK), transaction_id)
    _parse_attributes_untrusted(data, message)
    return message


def _parse_attributes_untrusted(data: bytes, message: Message) -> None:
    attributes = message.attributes
    position = HEADER_LENGTH
    count = 0
    while position < len(data):
        kind, length = _ATTRIBUTE.unpack_from(data, position)
        value = data[position + 4 : position + 4 + length]
        count += 1
        if len(value) != length:
            raise DecodeError("stun_truncated")
        if "FINGERPRINT" in attributes or count > MAX_ATTRIBUTES:
            raise DecodeError("stun_attributes", "FINGERPRINT is not last" if count <= MAX_ATTRIBUTES else "too many")
        known = ATTRIBUTES_BY_TYPE.get(kind)
        name = f"0x{kind:04X}" if known is None else known.name
        if _counts(name, message):
            attributes[name] = value if known is None else known.unpack(value, message.transaction_id)
            if name == "FINGERPRINT" and attributes[name] != message_fingerprint(data[:position]):
                raise DecodeError("stun_fingerprint")
            if name == "MESSAGE-INTEGRITY":
                message._integrity_data = data[:position]
            elif name == "MESSAGE-INTEGRITY-SHA256":
                if not SHA256_LENGTH_MINIMUM <= length <= SHA256_LENGTH_MAXIMUM or length % 4:
                    raise DecodeError("stun_attribute", "MESSAGE-INTEGRITY-SHA256")
                message._sha256_data = data[:position]
        position += 4 + length + (-length % 4)


def _counts(name: str, message: Message) -> bool:
    if name in message.attributes:
        return False
    if name == "FINGERPRINT":
        return True
    if message._sha256_data is not None:
        return False
    return message._integrity_data is None or name == "MESSAGE-INTEGRITY-SHA256"

"""RTP header extensions in the one-byte and the two-byte form (RFC 8285 §4.2, §4.3).

one-byte form, profile 0xBEDE          two-byte form, profile 0x100 || 4 application bits
 0 1 2 3 4 5 6 7                        0               1
+-+-+-+-+-+-+-+-+                      +---------------+---------------+
|  id   | len-1 | data …               |      id       |      len      | data …
+-+-+-+-+-+-+-+-+                      +---------------+---------------+

Bytes of value 0 between elements are padding. An extension under any other profile is not ours to read (RFC 3550 §5.3.1).
"""

from __future__ import annotations

from typing import TypeAlias

from protocol.errors import DecodeError, LocalError

__all__ = ["Extensions", "extension_layout", "find_element", "read_extensions_untrusted", "write_extensions"]

Extensions: TypeAlias = tuple[tuple[int, bytes], ...]
"""(id, value) in the order of the packet."""

# Specification constants
_ONE_BYTE_PROFILE = 0xBEDE
_TWO_BYTE_PROFILE = 0x1000  # the lowest four bits belong to the application: ignored, sent as 0
_ONE_BYTE_STOP = 15  # RFC 8285 §4.2: reserved, "processing of the entire extension MUST terminate"
_ONE_BYTE_MAX_ID = 14
_ONE_BYTE_MAX_LENGTH = 16
_MAX_WORDS = 0xFFFF


def read_extensions_untrusted(profile: int, block: bytes) -> Extensions:
    """The elements of an extension block; an element that overruns the block is a DecodeError."""
    if profile == _ONE_BYTE_PROFILE:
        return _read_one_byte(block)
    if profile & 0xFFF0 == _TWO_BYTE_PROFILE:
        return _read_two_byte(block)
    return ()


def _read_one_byte(block: bytes) -> Extensions:
    found = []
    position, end = 0, len(block)
    while position < end:
        head = block[position]
        position += 1
        if head == 0:
            continue
        identifier = head >> 4
        if identifier in (0, _ONE_BYTE_STOP):  # RFC 8285 §4.2: id 0 with a length stops the reading as well
            break
        length = (head & 0x0F) + 1
        if position + length > end:
            raise DecodeError("rtp_extension", "element overruns its block")
        found.append((identifier, block[position : position + length]))
        position += length
    return tuple(found)


def _read_two_byte(block: bytes) -> Extensions:
    found = []
    position, end = 0, len(block)
    while position < end:
        identifier = block[position]
        position += 1
        if identifier == 0:
            continue
        if position == end or position + 1 + block[position] > end:
            raise DecodeError("rtp_extension", "element overruns its block")
        length = block[position]
        position += 1
        found.append((identifier, block[position : position + length]))
        position += length
    return tuple(found)


def write_extensions(extensions: Extensions) -> bytes:
    """Profile, length in words and elements; the one-byte form whenever every element fits it."""
    if all(1 <= key <= _ONE_BYTE_MAX_ID and 1 <= len(value) <= _ONE_BYTE_MAX_LENGTH for key, value in extensions):
        profile = _ONE_BYTE_PROFILE
        block = b"".join(bytes((key << 4 | len(value) - 1,)) + value for key, value in extensions)
    else:
        profile = _TWO_BYTE_PROFILE
        for key, value in extensions:
            if not 1 <= key <= 255 or len(value) > 255:
                raise LocalError(f"header extension {key} of {len(value)} bytes cannot be written")
        block = b"".join(bytes((key, len(value))) + value for key, value in extensions)
    words = (len(block) + 3) // 4
    if words > _MAX_WORDS:
        raise LocalError("header extensions too long")
    return profile.to_bytes(2, "big") + words.to_bytes(2, "big") + block.ljust(4 * words, b"\0")


def extension_layout(extension: bytes) -> int:
    """Of a whole extension that was read without an error (profile, length, elements): a mask, as one big-endian number, of
    the bytes that say where its elements lie. Another one of that length that is equal under the mask is right as well."""
    decides = bytearray(len(extension))
    decides[:4] = b"\xff" * 4
    two_bytes = int.from_bytes(extension[:2], "big") & 0xFFF0 == _TWO_BYTE_PROFILE
    if two_bytes or extension[:2] == _ONE_BYTE_PROFILE.to_bytes(2, "big"):
        position, end = 4, len(extension)
        while position < end:
            decides[position] = 0xFF
            head = extension[position]
            position += 1
            if head == 0:
                continue
            if two_bytes:
                decides[position] = 0xFF
                position += 1 + extension[position]
            elif head >> 4 in (0, _ONE_BYTE_STOP):
                break
            else:
                position += (head & 0x0F) + 1
    return int.from_bytes(decides, "big")


def find_element(extension: bytes, identifier: int, length: int) -> int:
    """Of a whole extension that was read without an error: where the value of the first such element of `length` bytes
    begins; 0 if there is none. As long as the layout stays the same, so does this."""
    position = 4
    two_bytes = int.from_bytes(extension[:2], "big") & 0xFFF0 == _TWO_BYTE_PROFILE
    if not two_bytes and extension[:2] != _ONE_BYTE_PROFILE.to_bytes(2, "big"):
        return 0
    while position + 1 < len(extension):
        head = extension[position]
        if head == 0:
            position += 1
            continue
        key, size, start = head >> 4, (head & 0x0F) + 1, position + 1
        if two_bytes:
            key, size, start = head, extension[position + 1], position + 2
        elif key in (0, _ONE_BYTE_STOP):
            return 0
        if key == identifier and size == length:
            return start
        position = start + size
    return 0

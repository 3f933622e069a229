"""Handshake messages and their fragments: RFC 6347 §4.2.2, §4.2.3.

     0      1         4          6              9              12
    +------+---------+----------+--------------+--------------+------+
    | type | length  | sequence | frag. offset | frag. length | body |
    +------+---------+----------+--------------+--------------+------+

Fragments come in any order, overlapping, twice, empty. Nothing here is authenticated, so four rules keep it safe:

* A message that promises more than its type ever needs is dropped before a byte is reserved.
* What is reserved is bounded per association; the nearest message wins, since without it nothing goes on.
* Two fragments of one message that disagree on its type or length: the newer is believed and the message begun again.
  Whoever could wedge the handshake by one forged fragment would have to win every retransmission instead.
* A message that may not come now is no reason to give up, since anybody could have sent it: it is forgotten.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from protocol.dtls.registry import HandshakeType
from protocol.errors import DecodeError

__all__ = ["HANDSHAKE_HEADER_LENGTH", "Fragment", "HandshakeMessage", "Reassembler", "parse_fragments_untrusted"]

# Specification constants

HANDSHAKE_HEADER_LENGTH = 12
_HEADER = struct.Struct("!B3sH3s3s")

# Implementation constants

_MAXIMUM_LENGTH: dict[int, int] = {HandshakeType.CLIENT_HELLO: 16_384, HandshakeType.CERTIFICATE: 32_768}
_MAXIMUM_LENGTH_OTHERS = 8_192
_WINDOW = 8  # messages ahead of the next one; the longest flight has six
_MAXIMUM_RESERVED = 65_536  # bytes promised by incomplete and early messages of one association


class Fragment(NamedTuple):
    message_type: int
    length: int  # of the whole message
    sequence: int
    offset: int
    body: bytes


class HandshakeMessage(NamedTuple):
    message_type: int
    sequence: int
    body: bytes

    def header(self) -> bytes:
        """The header as if in one fragment, which is what the transcript takes."""
        length = len(self.body).to_bytes(3, "big")
        return _HEADER.pack(self.message_type, length, self.sequence, b"\0\0\0", length)

    def fragment(self, offset: int, size: int) -> bytes:
        """Header and body of one fragment of this message."""
        body = self.body[offset : offset + size]
        length = len(self.body).to_bytes(3, "big")
        place, size_field = offset.to_bytes(3, "big"), len(body).to_bytes(3, "big")
        return _HEADER.pack(self.message_type, length, self.sequence, place, size_field) + body

    def is_repeated_by(self, fragment: Fragment) -> bool:
        """Whether the fragment is a part of this very message. An empty part of a longer one says nothing."""
        end = fragment.offset + len(fragment.body)
        same = (fragment.message_type, fragment.length) == (self.message_type, len(self.body))
        return same and fragment.body == self.body[fragment.offset : end] and bool(fragment.body or not self.body)


def parse_fragments_untrusted(payload: bytes) -> list[Fragment]:
    """All fragments of one handshake record. One that does not fit makes the whole record undecodable."""
    fragments: list[Fragment] = []
    position, end = 0, len(payload)
    if not payload:
        raise DecodeError("fragment_truncated")
    while position < end:
        if end - position < HANDSHAKE_HEADER_LENGTH:
            raise DecodeError("fragment_truncated")
        message_type, length3, sequence, offset3, size3 = _HEADER.unpack_from(payload, position)
        length, offset = int.from_bytes(length3, "big"), int.from_bytes(offset3, "big")
        size = int.from_bytes(size3, "big")
        position += HANDSHAKE_HEADER_LENGTH
        if size > end - position:
            raise DecodeError("fragment_truncated")
        if offset + size > length:
            raise DecodeError("fragment_bounds")
        fragments.append(Fragment(message_type, length, sequence, offset, payload[position : position + size]))
        position += size
    return fragments


class _Partial:
    """A message on its way. `seen` has a byte for each byte of the message: 1 if it is there."""

    __slots__ = ("data", "length", "message_type", "missing", "seen")

    def __init__(self, message_type: int, length: int) -> None:
        self.message_type = message_type
        self.length = length
        self.data = bytearray(length)
        self.seen = bytearray(length)
        self.missing = length

    def add(self, offset: int, body: bytes) -> None:
        end = offset + len(body)
        new = len(body) - self.seen.count(1, offset, end)
        if new:
            self.data[offset:end] = body
            self.seen[offset:end] = b"\1" * len(body)
            self.missing -= new


class Reassembler:
    """Gives the messages of the peer whole and in order."""

    __slots__ = ("_drops", "_next", "_partials", "_reserved")

    def __init__(self, drops: Counter[str], first: int = 0) -> None:
        self._next = first
        self._partials: dict[int, _Partial] = {}
        self._reserved = 0
        self._drops = drops

    @property
    def next_sequence(self) -> int:
        return self._next

    def add(self, fragment: Fragment) -> None:
        sequence, length = fragment.sequence, fragment.length
        if sequence < self._next:
            self._drops["message_repeated"] += 1
            return
        if sequence >= self._next + _WINDOW:
            self._drops["message_too_early"] += 1
            return
        if length and not fragment.body:  # says nothing, and must not displace what others said
            self._drops["fragment_empty"] += 1
            return
        if length > _MAXIMUM_LENGTH.get(fragment.message_type, _MAXIMUM_LENGTH_OTHERS):
            self._drops["message_too_long"] += 1
            return
        partial = self._partials.get(sequence)
        if partial is not None and (partial.message_type, partial.length) != (fragment.message_type, length):
            self._drops["fragment_mismatch"] += 1
            self._release(sequence)
            partial = None
        if partial is None:
            if not self._reserve(sequence, length):
                self._drops["fragment_overflow"] += 1
                return
            partial = self._partials[sequence] = _Partial(fragment.message_type, length)
        partial.add(fragment.offset, fragment.body)

    def _reserve(self, sequence: int, length: int) -> bool:
        while self._reserved + length > _MAXIMUM_RESERVED:
            farthest = max(self._partials)
            if farthest < sequence:
                return False
            self._release(farthest)
            self._drops["fragment_evicted"] += 1
        self._reserved += length
        return True

    def _release(self, sequence: int) -> None:
        self._reserved -= self._partials.pop(sequence).length

    def messages(self, expects: Callable[[int], bool]) -> Iterator[HandshakeMessage]:
        """What is complete and in order, message by message.

        A message of a type that is not expected now is forgotten, and its place stays free for the right one.
        """
        while (partial := self._partials.get(self._next)) is not None and not partial.missing:
            sequence = self._next
            self._release(sequence)
            if not expects(partial.message_type):
                self._drops["message_unexpected"] += 1
                return
            self._next = sequence + 1
            yield HandshakeMessage(partial.message_type, sequence, bytes(partial.data))

"""Extensions that are nothing but a list of numbers.

supported_groups      RFC 8422 §5.1.1   NamedCurve list<2..2^16-1>, 2 bytes each
signature_algorithms  RFC 5246 §7.4.1.4.1, RFC 8446 §4.2.3   list<2..2^16-2>, 2 bytes each
ec_point_formats      RFC 8422 §5.1.2   list<1..2^8-1>, 1 byte each
supported_versions    RFC 8446 §4.2.1   ClientHello only: list<2..254>, 2 bytes each
"""

from __future__ import annotations

from collections.abc import Iterable

from protocol.errors import DecodeError
from protocol.wire import Reader, Writer

__all__ = [
    "pack_ec_point_formats",
    "pack_numbers16",
    "parse_ec_point_formats_untrusted",
    "parse_numbers16_untrusted",
    "parse_supported_versions_untrusted",
]


def _parse_untrusted(data: bytes, length_width: int, item_width: int) -> tuple[int, ...]:
    reader = Reader(data)
    block = reader.block(length_width)
    reader.finish()
    if not block.remaining or block.remaining % item_width:
        raise DecodeError("extension_malformed")
    return tuple(block.uint(item_width) for _ in range(block.remaining // item_width))


def parse_numbers16_untrusted(data: bytes) -> tuple[int, ...]:
    """supported_groups and signature_algorithms."""
    return _parse_untrusted(data, 2, 2)


def parse_ec_point_formats_untrusted(data: bytes) -> tuple[int, ...]:
    return _parse_untrusted(data, 1, 1)


def parse_supported_versions_untrusted(data: bytes) -> tuple[int, ...]:
    return _parse_untrusted(data, 1, 2)


def pack_numbers16(numbers: Iterable[int]) -> bytes:
    writer = Writer()
    with writer.block(2):
        for number in numbers:
            writer.u16(number)
    return writer.finish()


def pack_ec_point_formats(formats: Iterable[int]) -> bytes:
    writer = Writer()
    writer.opaque(bytes(formats), 1)
    return writer.finish()

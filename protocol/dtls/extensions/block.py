"""The block of extensions at the end of a hello: RFC 5246 §7.4.1.4. Order and unknown types are kept."""

from __future__ import annotations

from typing import TypeAlias

from protocol.errors import DecodeError
from protocol.wire import Reader, Writer

__all__ = ["Extensions", "parse_extensions_untrusted", "write_extensions"]

Extensions: TypeAlias = dict[int, bytes]
"""Extension data by type, in the order of the wire (browsers shuffle it; we do not depend on it)."""

_MAXIMUM_EXTENSIONS = 64  # browsers send about a dozen


def parse_extensions_untrusted(data: bytes) -> Extensions:
    """What follows the last fixed field of a hello, which may be nothing at all."""
    extensions: Extensions = {}
    if not data:
        return extensions
    reader = Reader(data)
    block = reader.block(2)
    reader.finish()
    while block.remaining:
        kind = block.u16()
        if kind in extensions:
            raise DecodeError("extension_repeated")
        if len(extensions) == _MAXIMUM_EXTENSIONS:
            raise DecodeError("extension_count")
        extensions[kind] = block.opaque(2)
    return extensions


def write_extensions(writer: Writer, extensions: Extensions) -> None:
    if not extensions:
        return
    with writer.block(2):
        for kind, data in extensions.items():
            writer.u16(kind)
            writer.opaque(data, 2)

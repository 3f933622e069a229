"""Reading and writing length-prefixed wire formats (TLS presentation language, SCTP, RTCP).

`Reader` checks every bound and raises only `DecodeError`; `Writer.block` back-patches lengths, so that a codec has
the shape of the RFC's own notation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from protocol.errors import DecodeError, LocalError

__all__ = ["Entropy", "Reader", "Writer"]

Entropy: TypeAlias = Callable[[int], bytes]
"""`entropy(n)` returns n random bytes; os.urandom in production, a seeded source in tests."""


class Reader:
    """A cursor over untrusted bytes."""

    __slots__ = ("_data", "_end", "_position")

    def __init__(self, data: bytes | memoryview, start: int = 0, end: int | None = None) -> None:
        self._data = memoryview(data)
        self._position = start
        self._end = len(data) if end is None else end
        if not 0 <= start <= self._end <= len(data):
            raise DecodeError("truncated")

    @property
    def position(self) -> int:
        return self._position

    @property
    def remaining(self) -> int:
        return self._end - self._position

    def view(self, length: int) -> memoryview:
        start = self._position
        if length > self._end - start:
            raise DecodeError("truncated")
        self._position = start + length
        return self._data[start : start + length]

    def take(self, length: int) -> bytes:
        return bytes(self.view(length))

    def rest(self) -> bytes:
        return self.take(self.remaining)

    def skip(self, length: int) -> None:
        self.view(length)

    def uint(self, width: int) -> int:
        start = self._position  # `view`, without the call: a hello has fifty numbers
        if width > self._end - start:
            raise DecodeError("truncated")
        self._position = start + width
        return int.from_bytes(self._data[start : start + width], "big")

    def u8(self) -> int:
        return self.uint(1)

    def u16(self) -> int:
        return self.uint(2)

    def u24(self) -> int:
        return self.uint(3)

    def u32(self) -> int:
        return self.uint(4)

    def u48(self) -> int:
        return self.uint(6)

    def u64(self) -> int:
        return self.uint(8)

    def block(self, width: int) -> Reader:
        """A reader over the vector that follows, its length given in `width` bytes."""
        length = self.uint(width)
        start = self._position
        self.skip(length)
        return Reader(self._data, start, start + length)

    def opaque(self, width: int) -> bytes:
        """The bytes of the vector that follows, its length given in `width` bytes."""
        return self.take(self.uint(width))

    def finish(self) -> None:
        """Strictness for free: nothing may follow."""
        if self._position != self._end:
            raise DecodeError("trailing_bytes")


class Writer:
    """A growing buffer with back-patched lengths. Values that do not fit are a bug of the caller (LocalError)."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = bytearray()

    def __len__(self) -> int:
        return len(self._data)

    def uint(self, value: int, width: int) -> None:
        try:
            self._data += value.to_bytes(width, "big")
        except OverflowError:
            raise LocalError(f"{value} does not fit {width} bytes") from None

    def u8(self, value: int) -> None:
        self.uint(value, 1)

    def u16(self, value: int) -> None:
        self.uint(value, 2)

    def u24(self, value: int) -> None:
        self.uint(value, 3)

    def u32(self, value: int) -> None:
        self.uint(value, 4)

    def u48(self, value: int) -> None:
        self.uint(value, 6)

    def u64(self, value: int) -> None:
        self.uint(value, 8)

    def put(self, data: bytes | memoryview) -> None:
        self._data += data

    def opaque(self, data: bytes | memoryview, width: int) -> None:
        """A vector: its length in `width` bytes, then the data."""
        self.uint(len(data), width)
        self._data += data

    @contextmanager
    def block(self, width: int) -> Iterator[None]:
        """A vector whose length, in `width` bytes, is filled in when the block ends."""
        start = len(self._data)
        self._data += b"\0" * width
        yield
        length = len(self._data) - start - width
        try:
            self._data[start : start + width] = length.to_bytes(width, "big")
        except OverflowError:
            raise LocalError(f"a block of {length} bytes does not fit a length of {width} bytes") from None

    def finish(self) -> bytes:
        return bytes(self._data)

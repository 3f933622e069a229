"""What a fuzz target is, and how one input becomes several datagrams."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass

from protocol.errors import DecodeError
from protocol.routing import Trunk, TrunkHead, TrunkKind
from protocol.wire import Entropy

__all__ = ["Target", "datagrams", "promise", "refused", "seeded", "tagged"]


class BrokenPromise(AssertionError):
    """What a parser gave does not fit what another parser, or the writer, makes of it."""


@dataclass(frozen=True, slots=True)
class Target:
    """`run` takes any bytes. It returns, or what it raises is a finding."""

    name: str
    run: Callable[[bytes], None]
    maximum: int = 1500  # bytes of one input


def refused(parse: Callable[[bytes], object]) -> Callable[[bytes], None]:
    """A parser's promise: a result or a DecodeError."""

    def run(data: bytes) -> None:
        with contextlib.suppress(DecodeError):
            parse(data)

    return run


def promise(holds: bool, what: str) -> None:
    if not holds:
        raise BrokenPromise(what)


def seeded() -> Entropy:
    """The same in each run, so that an input does the same each time."""
    return random.Random(7).randbytes


def datagrams(data: bytes) -> list[bytes]:
    """Cut by two-byte lengths; the last one may be short."""
    cut = []
    position = 0
    while position + 2 <= len(data):
        length = int.from_bytes(data[position : position + 2], "big")
        cut.append(data[position + 2 : position + 2 + length])
        position += 2 + length
    return cut


def tagged(trunk: Trunk, data: bytes) -> bytes:
    """A trunk datagram whose tag is right: five bytes say kind, family, ingress and count, the others are its body."""
    head, body = data[:5].ljust(5, b"\0"), data[5:]
    is_ipv6, count = bool(head[1] & 1), head[3] << 8 | head[4]
    kind = TrunkKind(head[0] % len(TrunkKind))
    end = len(body) if kind is TrunkKind.HELLO else count * (24 if is_ipv6 else 8)
    return trunk.seal(TrunkHead(kind, is_ipv6, head[2] & 127, count), body[:end], body[end:])

"""What the parent tells a worker, a word a line, over the worker's standard input.

Not by signals: a supervisor of services sends its signal to every process that it finds, and two of them, one from there and
one from the parent, would be taken for the second, which ends calls at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator

import trio

__all__ = ["DRAIN", "END", "follow_orders"]

DRAIN, END = b"drain\n", b"end\n"


async def follow_orders() -> AsyncIterator[bytes]:
    """The orders as they come; DRAIN once more when the parent is gone: calls may end in peace without it."""
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stream:
        pending = b""
        async for data in stream:
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                yield line + b"\n"
    yield DRAIN

"""How many calls each worker has, for all of them to see: a few bytes in a file that all have mapped.

A client, or a proxy before us, that keeps one connection open brings all its calls to one worker. The worker hands those that
are too many for it on to the one that has the fewest.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

__all__ = ["Loads"]

# Implementation constants
SLOT = struct.Struct("=I")  # each has one writer at a time: the worker while it lives, else the parent
ABSENT = 0xFFFF_FFFF
SLACK_CALLS, SLACK_SHARE = 4, 1.1  # by which a worker may be fuller than another before it hands calls on


class Loads:
    def __init__(self, path: Path, count: int) -> None:
        """Raises OSError. The parent has made the file (`create`)."""
        self._count = count
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), count * SLOT.size)

    @staticmethod
    def create(path: Path, count: int) -> Loads:
        """All workers absent."""
        path.write_bytes(SLOT.pack(ABSENT) * count)
        return Loads(path, count)

    def tell(self, index: int, calls: int) -> None:
        SLOT.pack_into(self._memory, index * SLOT.size, calls)

    def leave(self, index: int) -> None:
        """The worker takes no calls: it is gone, or goes."""
        self.tell(index, ABSENT)

    def relief_for(self, index: int) -> int | None:
        """The worker that should have a new call instead of this one; None: keep it."""
        calls = [SLOT.unpack_from(self._memory, place * SLOT.size)[0] for place in range(self._count)]
        emptiest = min(range(self._count), key=calls.__getitem__)
        enough = calls[emptiest] * SLACK_SHARE + SLACK_CALLS
        return emptiest if calls[index] > enough and calls[emptiest] != ABSENT else None

    def close(self) -> None:
        self._memory.close()

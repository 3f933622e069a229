"""What processes of this machine have used so far, by the kernel's own accounts (proc(5)): CPU and resident memory. Linux."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["Accounts", "ProcessSample"]

# Specification constants: fields of /proc/PID/stat behind the name, and of /proc/PID/statm
STATE, USER_TICKS, SYSTEM_TICKS, RESIDENT_PAGES = 0, 11, 12, 1
ENDED = "Z"  # and its parent has not asked how

PROC = Path("/proc")


class ProcessSample(NamedTuple):
    cpu: float
    """Seconds, of all threads, since the process began."""
    resident: int
    """Bytes, shared ones included."""


class Accounts:
    """Of a process and all below it, and of others by name. Each keeps the name under which it was seen first."""

    def __init__(self, root: int, others: dict[int, str]) -> None:
        """`root` 0: only the others."""
        self._root = root
        self._names = dict(others)
        self._taken: Counter[str] = Counter()
        self._others = tuple(others)

    def look(self) -> dict[str, ProcessSample]:
        """By name; those that have ended are missing."""
        found = {}
        for pid in (*self._others, *(self._below(self._root) if self._root else ())):
            try:
                sample = _read(pid)
                name = self._name(pid)
            except OSError:  # it has ended meanwhile
                continue
            found[name] = sample
        return found

    def _below(self, pid: int) -> Iterator[int]:
        yield pid
        try:
            for task in (PROC / str(pid) / "task").iterdir():
                for child in (task / "children").read_text().split():
                    yield from self._below(int(child))
        except OSError:
            return

    def _name(self, pid: int) -> str:
        """`relay`, and `relay 2` for the next of its kind."""
        if pid not in self._names:
            words = (PROC / str(pid) / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
            kind = words[words.index("-m") + 1] if "-m" in words[:-1] else words[0].rpartition("/")[2]
            kind = kind.partition(".")[0]
            self._taken[kind] += 1
            self._names[pid] = kind if self._taken[kind] == 1 else f"{kind} {self._taken[kind]}"
        return self._names[pid]


def _read(pid: int) -> ProcessSample:
    """Raises OSError if it has ended."""
    fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    if fields[STATE] == ENDED:
        raise ProcessLookupError(pid)
    pages = int((PROC / str(pid) / "statm").read_text().split()[RESIDENT_PAGES])
    ticks = int(fields[USER_TICKS]) + int(fields[SYSTEM_TICKS])
    return ProcessSample(ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE"))

"""The children of a running stack, as the kernel knows them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def children_of(pid: int) -> dict[str, int]:
    """Package → process id. A child that ends while we look is not there."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with suppress(FileNotFoundError, ProcessLookupError):
            words = Path(f"/proc/{child}/cmdline").read_bytes().decode().split("\0")
            if "-m" in words:  # a zombie has no words
                found[words[words.index("-m") + 1]] = int(child)
    return found

"""The committed corpora: a text file for each target, an input a line, in hexadecimal, so that a diff shows it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

__all__ = ["extend", "read", "unpack"]

FOLDER = Path(__file__).parent / "corpora"

# Implementation constants: what is kept of the thousands of inputs that a fuzzer collects
MAXIMUM_INPUTS = 150
MAXIMUM_BYTES = 24 * 1024


def read(name: str) -> list[bytes]:
    file = FOLDER / f"{name}.hex"
    return [bytes.fromhex(line) for line in file.read_text().split("\n")[:-1]] if file.exists() else []


def extend(name: str, found: Iterable[bytes]) -> int:
    """Add the shortest of what was found, as far as there is room; how many inputs there are then."""
    kept = read(name)
    size = sum(map(len, kept))
    for data in sorted(set(found) - set(kept), key=lambda data: (len(data), data)):
        size += len(data)
        if len(kept) == MAXIMUM_INPUTS or size > MAXIMUM_BYTES:
            break
        kept.append(data)
    kept.sort(key=lambda data: (len(data), data))
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.hex").write_text("".join(data.hex() + "\n" for data in kept))
    return len(kept)


def unpack(name: str, folder: Path) -> None:
    """As libFuzzer wants it: a file for each input."""
    folder.mkdir(parents=True, exist_ok=True)
    for data in read(name):
        (folder / hashlib.sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)

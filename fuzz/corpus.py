"""The committed corpora: a text file for each target, an input a line, in hexadecimal, so that a diff shows it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

__all__ = ["read", "unpack", "write"]

FOLDER = Path(__file__).parent / "corpora"

# Implementation constants: what is kept of the thousands of inputs that a fuzzer collects
MAXIMUM_INPUTS = 150
MAXIMUM_BYTES = 24 * 1024


def read(name: str) -> list[bytes]:
    file = FOLDER / f"{name}.hex"
    return [bytes.fromhex(line) for line in file.read_text().split("\n")[:-1]] if file.exists() else []


def write(name: str, inputs: Iterable[bytes]) -> int:
    """Keep the shortest; how many were kept."""
    kept: list[bytes] = []
    size = 0
    for data in sorted(set(inputs), key=lambda data: (len(data), data)):
        size += len(data)
        if len(kept) == MAXIMUM_INPUTS or size > MAXIMUM_BYTES:
            break
        kept.append(data)
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.hex").write_text("".join(data.hex() + "\n" for data in kept))
    return len(kept)


def unpack(name: str, folder: Path) -> None:
    """As libFuzzer wants it: a file for each input."""
    folder.mkdir(parents=True, exist_ok=True)
    for data in read(name):
        (folder / hashlib.sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)

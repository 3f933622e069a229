"""What callers who converse say: sentences as frames of every codec that they can be sent in.

By default those in `sentences.json`, a synthetic voice (tests/loadgen/make_sentences.py); or WAV files, encoded once before the
first call by a process of its own, `python -m agent.codecs`, which is where libopus is called.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec

from protocol.codecs import Codec, codec_by_name

__all__ = ["Habits", "Script", "ScriptFailed", "Sentence", "read_script"]

# Implementation constants
ENCODE_SECONDS = 60.0
ROOT = Path(__file__).resolve().parents[1]
DEFAULT = Path(__file__).with_name("sentences.json")


class ScriptFailed(Exception):
    """One sentence, for whoever gave the files."""


class Sentence(msgspec.Struct, frozen=True):
    name: str
    frames: dict[str, tuple[bytes, ...]]
    """By codec; 20 ms each, as many of one as of another."""
    begins: int
    ends: int
    """The first voiced frame and the last one; what stands before and behind is the silence around them."""


class Script(msgspec.Struct, frozen=True):
    sentences: tuple[Sentence, ...]
    silence: dict[str, bytes]
    """By codec: a frame to be sent while nothing is said."""

    @property
    def codecs(self) -> tuple[Codec, ...]:
        """To be offered."""
        return tuple(codec for name in self.silence if (codec := codec_by_name(name)) is not None)


@dataclass(frozen=True, slots=True)
class Habits:
    """Of a caller; times in seconds."""

    think: float = 1.0
    """Between the end of an answer and the next sentence."""
    patience: float = 10.0
    """With an answer that does not begin."""
    answer: float = 60.0
    """With one that does not end."""
    interrupt_every: int = 0
    """In every so manieth turn; 0: never."""


def read_script(files: Sequence[str]) -> Script:
    """Of WAV files, or of none: the default. Blocks; raises ScriptFailed."""
    return _encode(files) if files else _default()


@cache
def _default() -> Script:
    return msgspec.json.decode(DEFAULT.read_bytes(), type=Script)


def _encode(files: Sequence[str]) -> Script:
    command = [sys.executable, "-m", "agent.codecs", *(str(Path(file).absolute()) for file in files)]
    try:
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=ENCODE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise ScriptFailed(f"the sentences were not encoded within {ENCODE_SECONDS:g} s") from None
    if ended.returncode != 0:
        lines = ended.stderr.decode("utf-8", "replace").strip().splitlines()
        raise ScriptFailed(lines[-1] if lines else f"encoding the sentences ended with status {ended.returncode}")
    return msgspec.json.decode(ended.stdout, type=Script)

"""Pion as an echo server: built once, when Go is there, from the pinned modules in `pion/`."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from bench.processes import ROOT, BenchFailed, Child, clean_environment

__all__ = ["PION", "PionPrograms", "build_pion", "why_no_go"]

# Implementation constants
PION = "Pion"
SOURCE = Path(__file__).with_name("pion")
BUILT = ROOT / ".tools" / "bench"
ELSEWHERE = "/usr/local/go/bin:/usr/lib/go/bin:/snap/bin"  # where its installers put it, whatever PATH says
BUILD_LIMIT = 600.0  # seconds: the first time it fetches and compiles all modules


class PionPrograms:
    """`version` is that of github.com/pion/webrtc."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        words = (SOURCE / "go.mod").read_text().split()
        self.version = words[words.index("github.com/pion/webrtc/v4") + 1]

    def start_echo(self, cpu: int | None, kind: str = "mux") -> Child:
        """`bound["http"]` is where calls are placed."""
        environ = clean_environment() | {"GOMAXPROCS": "1"}
        return Child(PION, [str(self._folder / "echo"), kind], environ, cpu=cpu)


def why_no_go() -> str:
    found = shutil.which("go", path=ELSEWHERE)
    return f"{found} is not on PATH" if found else "no Go here"


def build_pion() -> PionPrograms | None:
    """None without Go on PATH. Raises BenchFailed when it does not build."""
    go = shutil.which("go")
    if go is None:
        return None
    BUILT.mkdir(parents=True, exist_ok=True)
    command = [go, "build", "-trimpath", "-o", f"{BUILT}{os.sep}", "./echo"]
    try:
        done = subprocess.run(command, cwd=SOURCE, capture_output=True, text=True, check=False, timeout=BUILD_LIMIT)
    except subprocess.TimeoutExpired:
        raise BenchFailed(f"{PION} was not built within {BUILD_LIMIT:g} s") from None
    if done.returncode:
        raise BenchFailed(f"{PION} does not build:\n{done.stderr}")
    return PionPrograms(BUILT)

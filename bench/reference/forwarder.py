"""The C forwarder: compiled when a compiler is there, and started with the generator's table of flows."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from bench.processes import BenchFailed, Child, clean_environment
from relay.config import RelayConfig

__all__ = ["BATCH", "compile_forwarder", "find_compiler", "start_forwarder"]

# Implementation constants
BATCH = RelayConfig().batch_size  # the same for all
SOURCE = Path(__file__).with_name("forwarder.c")


def find_compiler() -> str | None:
    return next(filter(None, map(shutil.which, ("gcc", "cc", "clang"))), None)


def compile_forwarder(folder: Path) -> Path | None:
    """The program in `folder`; None without a compiler. Raises BenchFailed when it does not compile."""
    compiler = find_compiler()
    if compiler is None:
        return None
    program = folder / "forwarder"
    done = subprocess.run(
        [compiler, "-O2", "-o", str(program), str(SOURCE)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BenchFailed(f"the reference forwarder does not compile:\n{done.stderr}")
    return program


def start_forwarder(program: Path, mtu: int, flows: bytes, cpu: int | None) -> Child:
    """An `mtu` of 0: a datagram each."""
    command = [str(program), str(mtu), str(BATCH)]
    return Child(f"C forwarder (MTU {mtu})", command, clean_environment(), cpu=cpu, stdin=flows)

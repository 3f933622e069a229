"""What is attacked: our whole stack, and aiortc, each as processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hostile_stack import ROOT, LiveStack, live_stack

from service.ready import parse_announcement


class Ours:
    def __init__(self, stack: LiveStack) -> None:
        self.url = stack.url
        self._stack = stack

    def memory(self) -> int:
        return self._stack.memory("transceiver")


class Aiortc:
    """The reference of the benchmarks: aiortc with an echo, frames passed on as they came."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.reference.aiortc_echo", "passing"],
            cwd=ROOT,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what the attacks make it say
        )
        assert self._process.stdout is not None
        bound = parse_announcement(self._process.stdout.readline().decode())
        assert bound is not None
        [self.url] = bound["http"]  # type: ignore[misc]

    def memory(self) -> int:
        pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGESIZE")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextmanager
def our_stack(*prefix: str, **environment: str) -> Iterator[Ours]:
    with live_stack(*prefix, **environment) as stack:
        yield Ours(stack)


@contextmanager
def aiortc_server(**environment: str) -> Iterator[Aiortc]:
    server = Aiortc(environment)
    try:
        yield server
    finally:
        server.close()

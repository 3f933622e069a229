"""A stack of our own: `python -m stack` on free ports of loopback, ended with us."""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from service.children import die_with_parent

__all__ = ["OwnStack", "StackFailed", "own_stack"]

# Implementation constants, seconds
START_LIMIT = 40.0
STOP_PATIENCE = 15.0

MAX_LINE = 4096
ROOT = Path(__file__).resolve().parents[1]

DEFAULTS = {
    "ANTIPHON_STACK_PORT": "0",
    "ANTIPHON_STACK_UDP_PORT": "0",
    "ANTIPHON_STACK_PUBLIC_ADDRESS": "127.0.0.1",
    "ANTIPHON_LOG_LEVEL": "warning",
}


class StackFailed(Exception):
    """It did not come up; its own words are on standard error."""


class OwnStack(NamedTuple):
    url: str
    """Of its signalling."""
    pid: int


@contextmanager
def own_stack(agent: str, environ: Mapping[str, str] = os.environ) -> Iterator[OwnStack]:
    """What the environment configures stands; only the rest is filled in."""
    # Blocking on purpose, before there is a loop: the kernel's signal at the parent's death is about the thread that forked.
    process = subprocess.Popen(
        [sys.executable, "-m", "stack", "--agent", agent],
        cwd=ROOT,
        env=DEFAULTS | dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,  # a Ctrl-C is ours: calls first, then the stack
        preexec_fn=die_with_parent(),
    )
    try:
        yield OwnStack(_read_ready_line(process), process.pid)
    finally:
        _stop(process)


def _read_ready_line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    deadline = time.monotonic() + START_LIMIT
    heard = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while b"\n" not in heard and len(heard) < MAX_LINE:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise StackFailed(f"the stack was not ready within {START_LIMIT:g} s")
            chunk = os.read(descriptor, MAX_LINE)
            if not chunk:
                raise StackFailed("the stack ended before it was ready; its reason is above")
            heard += chunk
    line = heard.decode("utf-8", "replace").partition("\n")[0]
    found = re.fullmatch(r"ready (https?://\S+/)", line.strip())
    if found is None:
        raise StackFailed(f"the stack said {line[:80]!r} instead of being ready")
    return found[1]


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    process.stdout.close()
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            process.send_signal(number)
        try:
            process.wait(STOP_PATIENCE)
        except subprocess.TimeoutExpired:
            continue
        return

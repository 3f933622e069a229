"""Readiness and the end: what a supervisor (or a script) needs to know of a process.

A process prints exactly one line on standard output when it serves: `ready {"listen": …}`, a JSON object with the
addresses it really bound. SIGTERM and SIGINT ask it to end; how it ends is its own affair.
"""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager

import msgspec
import trio

__all__ = ["announce", "calm_collector", "parse_announcement", "stop_signals"]

# Implementation constants
COLLECTIONS = (700, 10, 1000)  # gc.set_threshold: Python's own but for the last, 10: every ten thousandth is a full one


def announce(**bound: object) -> None:
    """Print the ready line; the garbage collector is calmed first."""
    calm_collector()
    sys.stdout.write("ready " + msgspec.json.encode(bound).decode() + "\n")
    sys.stdout.flush()


def calm_collector() -> None:
    """For a process that carries calls, when all that lives as long as the process is there.

    The garbage collector is told never to look at that again. A full collection among what comes later stops the process
    for as long as it takes to look at every call: calls leave no cycles behind (a test says so), and what else makes any
    is young when it dies, so full ones may be rare.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTIONS)


def parse_announcement(line: str) -> dict[str, object] | None:
    """The fields of a ready line of a child process of ours, or None for any other line."""
    word, _, rest = line.strip().partition(" ")
    return msgspec.json.decode(rest, type=dict[str, object]) if word == "ready" and rest.startswith("{") else None


def stop_signals() -> AbstractContextManager[AsyncIterator[int]]:
    """`with stop_signals() as signals: async for _ in signals`: the first asks to drain, the second to end at once."""
    return trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT)

"""A line a second on how the run goes: one that changes in place on a terminal, plain ones elsewhere; on standard error."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import trio
from rich.console import Console
from rich.live import Live
from rich.text import Text

from loadgen.result import Progress

__all__ = ["describe", "show_progress"]

# Implementation constants, seconds
INTERVAL = 1.0
INTERVAL_IN_PLACE = 0.25


async def show_progress(look: Callable[[], tuple[float, Progress]], calls: int, console: Console) -> NoReturn:
    """`look` tells the seconds of the run and what has been reached in them."""
    if not console.is_terminal:
        while True:
            await trio.sleep(INTERVAL)
            console.print(describe(*look(), calls), highlight=False, soft_wrap=True)
    # Without a thread of its own, which would disturb what is measured.
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            live.update(Text(describe(*look(), calls)), refresh=True)
            await trio.sleep(INTERVAL_IN_PLACE)


def describe(seconds: float, progress: Progress, calls: int) -> str:
    parts = [
        f"{seconds:5.1f} s",
        f"calls {progress.placed}/{calls}: {progress.talking} talking, {progress.finished} finished, "
        f"{progress.failed} failed",
        f"frames {progress.sent} sent, {progress.received} back",
        f"longest gap {progress.longest_gap * 1000:.0f} ms",
    ]
    if turns := progress.turns_completed + progress.turns_failed:
        parts[2:] = [f"turns {turns}: {progress.turns_failed} failed"]
    if (median := progress.round_trips.percentile(0.5)) is not None:
        parts.append(f"there and back {median * 1000:.1f} ms")
    return "  ".join(parts)

"""A line a second on how the run goes: one that changes in place on a terminal, plain ones elsewhere; on standard error."""

from __future__ import annotations

from typing import NoReturn

import trio
from rich.console import Console
from rich.live import Live
from rich.text import Text

from loadgen.scenario import Run

__all__ = ["show_progress"]

# Implementation constants, seconds
INTERVAL = 1.0
INTERVAL_IN_PLACE = 0.25


async def show_progress(run: Run, console: Console) -> NoReturn:
    if not console.is_terminal:
        while True:
            await trio.sleep(INTERVAL)
            console.print(describe(run), highlight=False, soft_wrap=True)
    # Without a thread of its own, which would disturb what is measured.
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            live.update(Text(describe(run)), refresh=True)
            await trio.sleep(INTERVAL_IN_PLACE)


def describe(run: Run) -> str:
    calls = run.calls
    failed = sum(call.failure is not None for call in calls)
    sent = sum(call.audio.sent for call in calls)
    received = sum(call.audio.received for call in calls)
    gap = max((call.audio.longest_gap for call in calls), default=0.0)
    parts = [
        f"{trio.current_time() - run.started_at:5.1f} s",
        f"calls {len(calls)}/{run.options.calls}: {run.talking} talking, {run.finished} finished, {failed} failed",
        f"frames {sent} sent, {received} back",
        f"longest gap {gap * 1000:.0f} ms",
    ]
    if (median := run.figures.frame_round_trips.percentile(0.5)) is not None:
        parts.append(f"there and back {median * 1000:.1f} ms")
    return "  ".join(parts)

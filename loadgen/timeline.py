"""How a run went from second to second: what the plots over time are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, NoReturn

import trio

from loadgen.accounts import Accounts, ProcessSample
from loadgen.result import Progress

__all__ = ["INTERVAL", "Sample", "Timeline", "sample"]

# Implementation constants
INTERVAL = 1.0
MAX_SAMPLES = 1200  # then every second one is given up, and the interval doubles


NO_PROCESSES: Mapping[str, ProcessSample] = {}


class Sample(NamedTuple):
    """Totals at a moment of the run."""

    at: float
    """Seconds since the run began."""
    placed: int
    talking: int
    failed: int
    sent: int
    received: int
    late: int
    sent_late: int = 0
    """By ourselves, or never."""
    processes: Mapping[str, ProcessSample] = NO_PROCESSES


class Timeline:
    """`accounts` are of the processes whose CPU and memory it follows besides."""

    def __init__(self, accounts: Accounts | None = None) -> None:
        self.samples: list[Sample] = []
        self._interval = INTERVAL
        self._accounts = accounts

    async def watch(self, look: Callable[[], tuple[float, Progress]]) -> NoReturn:
        while True:
            self.take(*look())
            await trio.sleep(self._interval)

    def take(self, seconds: float, progress: Progress) -> None:
        processes = self._accounts.look() if self._accounts is not None else NO_PROCESSES
        self.add(sample(seconds, progress)._replace(processes=processes))

    def add(self, taken: Sample) -> None:
        if len(self.samples) >= MAX_SAMPLES:
            del self.samples[1::2]
            self._interval *= 2
        self.samples.append(taken)


def sample(seconds: float, progress: Progress) -> Sample:
    return Sample(
        at=round(seconds, 3),
        placed=progress.placed,
        talking=progress.talking,
        failed=progress.failed,
        sent=progress.sent,
        received=progress.received,
        late=progress.late,
        sent_late=progress.sent_late,
    )

"""How a run went from second to second: what the plots over time are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, NoReturn

import trio

from loadgen.result import Progress

__all__ = ["Sample", "Timeline"]

# Implementation constants
INTERVAL = 1.0
MAX_SAMPLES = 1200  # then every second one is given up, and the interval doubles


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


class Timeline:
    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self._interval = INTERVAL

    async def watch(self, look: Callable[[], tuple[float, Progress]]) -> NoReturn:
        while True:
            self.add(sample(*look()))
            await trio.sleep(self._interval)

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
    )

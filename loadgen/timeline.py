"""How a run went from second to second: what the plots over time are made of."""

from __future__ import annotations

from typing import NamedTuple, NoReturn

import trio

from loadgen.scenario import Run

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

    async def watch(self, run: Run) -> NoReturn:
        while True:
            self.add(sample(run, trio.current_time()))
            await trio.sleep(self._interval)

    def add(self, taken: Sample) -> None:
        if len(self.samples) >= MAX_SAMPLES:
            del self.samples[1::2]
            self._interval *= 2
        self.samples.append(taken)


def sample(run: Run, now: float) -> Sample:
    calls = run.calls
    return Sample(
        at=round(now - run.started_at, 3),
        placed=len(calls),
        talking=run.talking,
        failed=sum(call.failure is not None for call in calls),
        sent=sum(call.audio.sent for call in calls),
        received=sum(call.audio.received for call in calls),
        late=sum(call.audio.late for call in calls),
    )

"""The clocks of the session tables: a state that has a deadline starts its clock when it is entered."""

from __future__ import annotations

import enum
import math

from protocol.fsm import Deadline, Machine
from transceiver.config import Timeouts

__all__ = ["Clocks"]


class Clocks:
    """`update` after each event fired; `expired` gives what to fire next. Staying in a state does not wind its clock."""

    __slots__ = ("_deadlines", "_machine", "_next", "_running", "_timeouts")

    def __init__(self, machine: Machine, timeouts: Timeouts, now: float) -> None:
        self._machine = machine
        self._timeouts = timeouts
        self._deadlines: tuple[tuple[enum.Enum, Deadline], ...] | None = None  # of the clocks that run
        self._running: dict[enum.Enum, float] = {}  # when the time of each state is up
        self.update(now)

    def update(self, now: float) -> None:
        deadlines = self._machine.deadlines()
        if deadlines is self._deadlines:
            return
        self._deadlines = deadlines
        self._running = {
            state: self._running.get(state) or now + getattr(self._timeouts, deadline.timeout)
            for state, deadline in deadlines
        }
        self._next = min(self._running.values(), default=math.inf)

    def next_timeout(self) -> float:
        return self._next

    def expired(self, now: float) -> tuple[enum.Enum, type] | None:
        """The state whose time is up longest, and the event to fire; ask again after firing it."""
        if now < self._next:
            return None
        state = min(self._running, key=self._running.__getitem__)
        return state, next(deadline.event for running, deadline in self._machine.deadlines() if running is state)

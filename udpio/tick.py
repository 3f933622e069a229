"""When a packet loop reads its sockets again: at once while little comes, after a short sleep while much does.

A wake-up costs several times what a packet costs. So with `rate × budget ≥ MANY` packets to be expected within the latency
budget, the loop sleeps for that long and then takes all of them; with fewer it waits in the kernel and is woken by the first
one. A socket that still holds a full batch is read on without any sleep.

The rate is that of the last 20 ms or so. Who has begun to sleep goes on until the rate is half of what began it, so a
rate near the border does not flutter.
"""

from __future__ import annotations

__all__ = ["Tick"]

# Implementation constants

MANY = 4.0  # packets that one sleep must be worth
_FEW = MANY / 2
_MEMORY = 0.02  # seconds


class Tick:
    """`budget`: seconds that a packet may wait for others; 0: never."""

    def __init__(self, budget: float) -> None:
        self._budget = budget
        self._rate = 0.0
        self._at = 0.0
        self._sleeps = False

    @property
    def rate(self) -> float:
        """Packets a second."""
        return self._rate

    def next_sleep(self, packets: int, now: float) -> float:
        """After a turn that took `packets` and left none: how long to sleep; 0: wait to be woken."""
        elapsed = now - self._at
        self._at = now
        if elapsed > 0:
            self._rate += (packets / elapsed - self._rate) * elapsed / (elapsed + _MEMORY)
        if not packets:  # who has slept in vain waits to be woken
            self._sleeps = False
            return 0.0
        expected = self._rate * self._budget
        self._sleeps = expected >= (_FEW if self._sleeps else MANY)
        return self._budget if self._sleeps else 0.0

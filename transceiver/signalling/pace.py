"""How fast a WebSocket may speak to an agent: whoever is faster is read more slowly, and nothing is dropped."""

from __future__ import annotations

import trio

__all__ = ["BURST", "RATE", "Pace"]

# Implementation constants
# A message costs us and the agent about as much as a frame of audio, whatever its size (session/inflow.py).
RATE = 200.0  # a second
BURST = 200.0


class Pace:
    """Of one WebSocket."""

    __slots__ = ("_counted_at", "_left")

    def __init__(self) -> None:
        self._left = BURST
        self._counted_at = trio.current_time()

    async def turn(self) -> None:
        """Wait until one message more may be passed on."""
        now = trio.current_time()
        self._left = min(BURST, self._left + (now - self._counted_at) * RATE) - 1
        self._counted_at = now
        if self._left < 0:
            await trio.sleep(-self._left / RATE)

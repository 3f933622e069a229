"""What a caller says on his data channels, on its way to the agent: at the pace of his share.

1. A call may say RATE things a second, BURST at once: messages, and channels that come and go.
2. What is beyond that waits here, in order. `octets` and `room` say how much it is: the association takes it off the window
   that it tells, so the caller's own stack holds back what follows. Nothing is dropped.
"""

from __future__ import annotations

from collections import deque

from protocol.sctp import ChannelClosed, ChannelMessage, ChannelOpened

__all__ = ["BURST", "RATE", "RETRY_SECONDS", "Inflow", "Said"]

Said = ChannelOpened | ChannelClosed | ChannelMessage

# Implementation constants
# A message costs us and the agent as much as a frame of audio, whatever its size. So one caller at his share costs what four
# that speak cost; a mouse, and the words of a Realtime session, stay below it.
RATE = 200.0  # a second
BURST = 100.0
RETRY_SECONDS = 0.020  # between two looks at what waits: a wake of the engine for each token would cost more than it
WORD_ROOM = 4096  # what each takes of the window besides its bytes: 256 small ones fill it


class Inflow:
    """Of one call. Pure: the caller has the clock."""

    __slots__ = ("_counted_at", "_left", "octets", "room", "waiting")

    def __init__(self) -> None:
        self._left = BURST
        self._counted_at = 0.0
        self.waiting: deque[tuple[ChannelOpened | None, Said]] = deque()
        """With the channel that it was said on, as it was then."""
        self.octets = 0
        self.room = 0

    def take(self, now: float) -> bool:
        """One thing more may be said now."""
        self._left = min(BURST, self._left + (now - self._counted_at) * RATE)
        self._counted_at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def put(self, channel: ChannelOpened | None, said: Said) -> None:
        self.waiting.append((channel, said))
        self._count(said, 1)

    def pop(self) -> tuple[ChannelOpened | None, Said]:
        channel, said = self.waiting.popleft()
        self._count(said, -1)
        return channel, said

    def drop_words(self) -> None:
        """Keep the messages: whoever comes next is introduced to the channels that there are."""
        kept = [(channel, said) for channel, said in self.waiting if isinstance(said, ChannelMessage)]
        self.waiting.clear()
        self.octets = self.room = 0
        for channel, said in kept:
            self.put(channel, said)

    def _count(self, said: Said, sign: int) -> None:
        size = len(said.data) if isinstance(said, ChannelMessage) else 0
        self.octets += sign * max(size, 1)
        self.room += sign * (size + WORD_ROOM)

"""The account of one call's downlink audio: how much was sent, how much of it was really played, how much lies ahead.

The agent's timeline counts samples from 0 without holes. Reports say up to which point of it the caller's line has played.

1. `send` moves the end of the timeline; a report moves `position` and adds what lies between to `played`.
2. A flush gives up everything before the present end. Until its report arrives, older reports still count up to there;
   the `flushed` report settles how much of it was played, and `position` jumps to the end of what was given up.
3. A report from beyond a given-up end proves that flush, too: the transceiver need not answer each one.
"""

from __future__ import annotations

from collections import deque

from protocol.agentlink import PlayedReason

__all__ = ["Playback"]

HALF = 1 << 31
WRAP = 1 << 32


class Playback:
    """Samples of the codec's RTP clock throughout. Pure: no time, no I/O."""

    __slots__ = ("_given_up", "_position", "played", "sent", "settled")

    def __init__(self) -> None:
        self.sent = 0
        self.played = 0
        self.settled = 0  # how many flushes have been answered
        self._position = 0
        self._given_up: deque[int] = deque()  # ends of the timeline at flushes not answered yet

    @property
    def ahead(self) -> int:
        """Sent, not given up, not reported played."""
        return self.sent - (self._given_up[-1] if self._given_up else self._position)

    @property
    def flushes(self) -> int:
        """How many flushes were made; flush number n is answered when `settled` reaches n."""
        return self.settled + len(self._given_up)

    def send(self, samples: int) -> int:
        """The RTP time of a frame that is sent now."""
        start = self.sent
        self.sent += samples
        return start % WRAP

    def rewind(self, rtp_time: int) -> None:
        """Audio from `rtp_time` on has not left this process and never will: take it back, so that no hole appears."""
        self.sent -= (self.sent - rtp_time) % WRAP

    def flush(self) -> None:
        self._given_up.append(self.sent)

    def report(self, rtp_time: int, reason: PlayedReason) -> None:
        """A `call.played`. Whatever it says, `played` never shrinks and never exceeds what was sent."""
        distance = (rtp_time - self._position + HALF) % WRAP - HALF
        point = self._position + distance
        while self._given_up and point > self._given_up[0]:
            self._settle()
        limit = self._given_up[0] if self._given_up else self.sent
        point = min(max(point, self._position), limit)
        self.played += point - self._position
        self._position = point
        if reason is PlayedReason.FLUSHED and self._given_up:
            self._settle()

    def _settle(self) -> None:
        self._position = self._given_up.popleft()
        self.settled += 1

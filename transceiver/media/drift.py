"""Two clocks that do not run alike: an agent that speaks in real time, by its own clock, against our pacer.

An echo returns its caller's frames at the pace of the caller's sound card; a card that is 1000 ppm fast is 3.6 s ahead after an
hour. Such a stream is followed: the pacer's frames become as long as the agent's are.

1. `lead` is how long before its time a frame came. The greatest in a window (`WINDOW_SECONDS`) belongs to the frame that was
   held up least; from window to window it moves as the clocks do, whatever the jitter.
2. That slope corrects the pace, and what has gathered meanwhile is taken back slowly, to the lead that the stream began with.
3. Who speaks far ahead of time (a synthesiser) is held back by `call.played`, not by a clock: nothing to follow. A step that
   no pair of clocks makes teaches nothing about them; it is taken back, like any surplus.
"""

from __future__ import annotations

import math

__all__ = ["ClockFollower"]

# Implementation constants
WINDOW_SECONDS = 10.0
MAX_SKEW = 0.002  # 2000 ppm: sound cards differ by some hundred
LIVE_LEAD = 0.5  # seconds; further ahead it is no speech in real time
RETURN_SECONDS = 20.0  # in which surplus lead is taken back
MAX_CORRECTION = 0.01  # a listener's jitter buffer does more than that without being heard
HELD_UP_SECONDS = 2.0  # an interruption that is shorter may be a hold-up: what it left as lead is surplus


class ClockFollower:
    """Hot path: `if lead > follower.best: follower.best = lead`, and `judge` once `now` has reached `judge_at`."""

    __slots__ = ("_previous", "_previous_at", "_skew", "_target", "best", "correction", "judge_at")

    def __init__(self) -> None:
        self._skew = 0.0  # of the agent's clock against ours, as far as known
        self.correction = 0.0  # by which each frame is to last less than its samples say
        self.restart(-math.inf, math.inf)

    def restart(self, now: float, pause: float) -> None:
        """The stream was interrupted for `pause` seconds. The clocks stay what they are; after a long pause what comes has a
        lead of its own."""
        self.best = -math.inf
        self.judge_at = now + WINDOW_SECONDS
        self._previous = math.nan
        self._previous_at = now
        if pause > HELD_UP_SECONDS:
            self._target = math.nan

    def judge(self, now: float) -> None:
        """A window has passed."""
        best, self.best = self.best, -math.inf
        self.judge_at = now + WINDOW_SECONDS
        if not abs(best) < LIVE_LEAD:
            self._previous = math.nan
            self.correction = 0.0
            return
        if math.isnan(self._target):
            self._target = best
        slope = (best - self._previous) / (now - self._previous_at)
        self._previous, self._previous_at = best, now
        if math.isnan(slope):
            return
        if abs(slope) <= MAX_SKEW:
            # What the slope shows is the skew that is not corrected yet; half of it, for it is measured with some noise.
            self._skew = _bounded(self.correction + slope, MAX_SKEW) / 2 + self._skew / 2
        self.correction = _bounded(self._skew + (best - self._target) / RETURN_SECONDS, MAX_CORRECTION)


def _bounded(value: float, limit: float) -> float:
    return max(-limit, min(limit, value))

"""Two clocks that do not run alike: an agent that speaks in real time, by its own clock, against our pacer.

An echo returns its caller's frames at the pace of the caller's sound card; a card that is 1000 ppm fast is 3.6 s ahead after an
hour. Such a stream is followed: the pacer's frames become as long as the agent's are.

1. `lead` is how long before its time a frame came. The greatest in a window (`WINDOW_SECONDS`) belongs to the frame that was
   held up least; from window to window it moves as the clocks do, whatever the jitter.
2. That slope corrects the pace, and what has gathered meanwhile is taken back slowly, to the lead that the stream began with.
3. A hold-up on the way ends a talkspurt, for us, and leaves as lead what came all at once behind it: surplus of about its
   length, in a stream that is live all the same. The target stays what it was before, if only for a part of a window.
4. Who speaks far ahead of time (a synthesiser) is held back by `call.played`, not by a clock: nothing to follow. A step that
   no pair of clocks makes teaches nothing about them; it is taken back, like any surplus.
"""

from __future__ import annotations

import math

__all__ = ["ClockFollower"]

# Implementation constants
WINDOW_SECONDS = 10.0
MAX_SKEW = 0.002  # 2000 ppm: sound cards differ by some hundred
LIVE_LEAD = 0.5  # seconds; further ahead, by more than hold-ups explain, it is no speech in real time
RETURN_SECONDS = 20.0  # in which surplus lead is taken back
MAX_CORRECTION = 0.02  # a listener's jitter buffer does more than that without being heard
MAX_STRETCH = 0.01  # the other way, which makes delay
HELD_UP_SECONDS = 2.0  # an interruption that is shorter may be a hold-up: what it left as lead is surplus


class ClockFollower:
    """Hot path: `if lead > follower.best: follower.best = lead`, and `judge` once `now` has reached `judge_at`."""

    __slots__ = ("_held_up", "_previous", "_previous_at", "_skew", "_target", "best", "correction", "judge_at")

    def __init__(self) -> None:
        self._skew = 0.0  # of the agent's clock against ours, as far as known
        self.correction = 0.0  # by which each frame is to last less than its samples say
        self.best = -math.inf
        self.restart(-math.inf, math.inf)

    def restart(self, now: float, pause: float) -> None:
        """The stream was interrupted for `pause` seconds. The clocks stay what they are; after a long pause what comes has a
        lead of its own."""
        if pause > HELD_UP_SECONDS:
            self._target = math.nan
            self._held_up = 0.0
        else:
            self._held_up = min(self._held_up + pause, HELD_UP_SECONDS)
            if math.isnan(self._target) and abs(self.best) < LIVE_LEAD:
                self._target = self.best
        self.best = -math.inf
        self.judge_at = now + WINDOW_SECONDS
        self._previous = math.nan
        self._previous_at = now

    def judge(self, now: float) -> None:
        """A window has passed."""
        best, self.best = self.best, -math.inf
        self.judge_at = now + WINDOW_SECONDS
        known = not math.isnan(self._target)
        if not -LIVE_LEAD < best < LIVE_LEAD + (self._held_up if known else 0.0):
            self._previous = math.nan
            self.correction = 0.0
            return
        if not known or (math.isnan(self._previous) and best < self._target):  # no hold-up makes a lead smaller
            self._target = best
        passed = now - self._previous_at
        slope = (best - self._previous) / passed
        self._previous, self._previous_at = best, now
        # A stream that stays ahead whatever is taken back of its lead is not live: its patience ends when all was.
        self._held_up = max(0.0, self._held_up - max(0.0, self.correction - self._skew) * passed)
        if abs(slope) <= MAX_SKEW:
            # What the slope shows is the skew that is not corrected yet; half of it, for it is measured with some noise.
            self._skew = _bounded(self.correction + slope, MAX_SKEW) / 2 + self._skew / 2
        correction = self._skew + (best - self._target) / RETURN_SECONDS
        self.correction = max(-MAX_STRETCH, min(MAX_CORRECTION, correction))


def _bounded(value: float, limit: float) -> float:
    return max(-limit, min(limit, value))

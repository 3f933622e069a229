"""Which lost packets are asked for, and when (the receiver's side of RFC 4585 §6.2.1).

1. A packet is missed when one behind it came. It is asked for after `tolerance`, for it may only be out of order: a few
   milliseconds, more when packets of this stream were seen to come out of order.
2. It is asked for again when an answer would have come: after the time that answers took so far, or a round trip. At
   most `max_asks` times, and never when the answer would come after `deadline`, the end of its place in the row.
   What a copy covers has an early deadline: it is asked for only where answers are quick.
3. Not more than `rate` packets a second are asked for, and of one gap only the newest `max_gap`: a hole of half a second
   is an outage, and speech that old helps nobody.
4. Whether asking helps is learnt: `recovery_time` is None while hardly any packet that was asked for comes.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

__all__ = ["ANSWER_SLACK", "RequestConfig", "ResendRequests"]

# Implementation constants
ANSWER_SLACK = 0.010  # seconds: a sender looks at its RTCP now and then, not at once
_UNKNOWN_ROUND_TRIP = 0.060  # seconds, before anything was measured
_MIN_ANSWER = 0.005
_REORDER_FACTOR = 1.5
_TOO_SOON = 0.4  # round trips after asking: what comes sooner was on its way already
_TRIES_IN_VAIN = 8
_HOPELESS = 0.2  # of what was asked for came; below it nothing is waited for
_MAX_TRACKED = 128  # packets; the oldest are forgotten
_GIVEN_UP_REMEMBERED = 8  # of those, packets whose answer would be too late, but would tell how long answers take


@dataclass(frozen=True, slots=True)
class RequestConfig:
    max_asks: int = 3
    min_tolerance: float = 0.005  # seconds
    max_tolerance: float = 0.020
    max_gap: int = 16
    rate: float = 50.0  # packets asked for in a second
    burst: float = 32.0


class _Missing:
    __slots__ = ("asked", "asked_at", "asks_left", "covered", "deadline", "due", "missed_at")

    def __init__(self, now: float, due: float, deadline: float, asks: int) -> None:
        self.missed_at = now
        self.asked_at = math.inf  # the first time
        self.asked = 0
        self.asks_left = asks
        self.due = due  # when to ask (again)
        self.deadline = deadline
        self.covered = False


class ResendRequests:
    """`miss`, `arrived` and `give_up` are told by whoever puts the packets in order; `take` says what to ask for.

    `due` is when `take` has something: infinity while nothing is missed.
    """

    __slots__ = (
        "_answer",
        "_config",
        "_given_up",
        "_hope",
        "_missing",
        "_reorder",
        "_round_trip",
        "_tokens",
        "_tokens_at",
        "_vain",
        "due",
    )

    def __init__(self, config: RequestConfig | None = None) -> None:
        self._config = config or RequestConfig()
        self._missing: dict[int, _Missing] = {}  # by sequence number, in the order they were missed
        self._given_up: deque[tuple[int, _Missing]] = deque()
        self._answer: float | None = None  # seconds from asking to the packet, smoothed
        self._hope = 1.0  # of the packets that were asked for came
        self._round_trip = 0.0  # as last told
        self._reorder = 0.0  # seconds by which packets out of order were late
        self._vain = 0  # packets for which asking seemed of no use
        self._tokens = self._config.burst
        self._tokens_at = -math.inf
        self.due = math.inf

    @property
    def tolerance(self) -> float:
        config = self._config
        return min(max(config.min_tolerance, _REORDER_FACTOR * self._reorder), config.max_tolerance)

    def recovery_time(self, round_trip: float | None) -> float | None:
        """Seconds from asking to the packet that was asked for; None when it will hardly come."""
        if self._hope < _HOPELESS:
            return None
        return self._answer_time(round_trip) + ANSWER_SLACK

    def miss(self, sequences: range, now: float, deadline: float) -> None:
        """Packets of a gap, in order; each wraps at 2^16."""
        config = self._config
        due = now + self.tolerance
        for sequence in sequences[-config.max_gap :]:
            self._missing[sequence & 0xFFFF] = _Missing(now, due, deadline, config.max_asks)
        while len(self._missing) > _MAX_TRACKED:
            del self._missing[next(iter(self._missing))]
        self.due = min(self.due, due)

    def arrived(self, sequence: int, now: float) -> bool:
        """A packet that was missed came. Whether it was asked for, and not only out of order."""
        missing = self._missing.pop(sequence, None)
        if missing is None:
            return False
        self._schedule()
        if now - missing.asked_at < _TOO_SOON * self._round_trip:  # or not asked for at all
            self._reorder = max(now - missing.missed_at, 0.9 * self._reorder)
            return False
        self._reorder *= 0.98
        # Asked for twice, it may have been the second time that was answered: such a time counts for less.
        took, weight = now - missing.asked_at, 4 if missing.asked == 1 else 8
        self._answer = took if self._answer is None else self._answer + (took - self._answer) / weight
        self._hope += (1.0 - self._hope) / 4
        return True

    def cover(self, sequence: int, deadline: float) -> None:
        """There is a copy of it, which is used at `deadline`."""
        if (missing := self._missing.get(sequence)) is not None:
            missing.deadline, missing.covered = deadline, True

    def forget(self, sequence: int) -> None:
        """Its place was filled by other means."""
        if self._missing.pop(sequence, None) is not None:
            self._schedule()

    def give_up(self, sequences: range) -> None:
        """Their place in the row is gone. The last ones that were asked for stay known: one that comes late tells how long
        it takes."""
        for number in sequences[-self._config.max_gap :]:
            sequence = number & 0xFFFF
            missing = self._missing.get(sequence)
            if missing is None:
                continue
            if missing.asked:
                missing.asks_left = 0
                self._hope -= self._hope / 8
                self._given_up.append((sequence, missing))
            else:
                del self._missing[sequence]
        while len(self._given_up) > _GIVEN_UP_REMEMBERED:
            sequence, forgotten = self._given_up.popleft()
            if self._missing.get(sequence) is forgotten:  # it has not come since, nor the number come round again
                del self._missing[sequence]
        self._schedule()

    def take(self, now: float, round_trip: float | None) -> tuple[int, ...]:
        """The packets to ask for now, in order."""
        if now < self.due:
            return ()
        self._round_trip = round_trip or 0.0
        again = self._answer_time(round_trip) + ANSWER_SLACK
        self._fill_tokens(now)
        taken = []
        for sequence, missing in self._missing.items():
            if not missing.asks_left:
                continue
            if missing.due <= now:
                in_time = now + again - ANSWER_SLACK <= missing.deadline and self._hope >= _HOPELESS
                if self._tokens < 1.0 or not (in_time or self._tries_in_vain(missing)):
                    missing.asks_left = 0
                    continue
                self._tokens -= 1.0
                taken.append(sequence)
                missing.asked += 1
                missing.asked_at = min(missing.asked_at, now)
                missing.asks_left -= 1
                missing.due = now + again
        self._schedule()
        return tuple(taken)

    def clear(self) -> None:
        """Another source: what is missed of the last one will not come."""
        self._missing.clear()
        self._given_up.clear()
        self.due = math.inf

    def _tries_in_vain(self, missing: _Missing) -> bool:
        """Where asking seems of no use it is still tried now and then, once: that is how a change is noticed."""
        if missing.asked or missing.covered:
            return False
        self._vain += 1
        return self._vain % _TRIES_IN_VAIN == 0

    def _schedule(self) -> None:
        self.due = min((missing.due for missing in self._missing.values() if missing.asks_left), default=math.inf)

    def _answer_time(self, round_trip: float | None) -> float:
        if self._answer is not None:
            return max(self._answer, _MIN_ANSWER)
        return max(round_trip, _MIN_ANSWER) if round_trip is not None else _UNKNOWN_ROUND_TRIP

    def _fill_tokens(self, now: float) -> None:
        config = self._config
        elapsed = max(0.0, now - self._tokens_at)
        self._tokens = min(config.burst, self._tokens + elapsed * config.rate) if elapsed < 1e9 else config.burst
        self._tokens_at = now

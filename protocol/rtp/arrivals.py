"""When each packet came, for the sender's estimate of the bandwidth (transport-wide congestion control).

1. A packet carries a transport-wide sequence number in a header extension. `record` notes it with the time.
2. Once `INTERVAL` has passed, or `MAX_NOTED` packets were noted, `record` says that it is time for `take`, which gives the
   feedback: it begins behind the last packet reported, so that what did not come is told, too. It goes out as packets come,
   without a timer: in a silence there is nothing to tell.
3. A packet that comes later than those reported is told again with its neighbours. What was reported is known for `MAX_SPAN`
   numbers; one that lies further back begins another stream.
"""

from __future__ import annotations

from protocol.rtp.rtcp import TransportFeedback
from protocol.rtp.rtcp.transport_cc import REFERENCE_TICKS, TICKS_PER_SECOND

__all__ = ["ArrivalLog"]

# Implementation constants
# Seconds: twelve frames of 20 ms, one of them a little early. libwebrtc's receivers let feedback take a twentieth of the
# bandwidth, 50 to 250 ms apart; for a stream of speech that is the longest.
INTERVAL = 0.235
MAX_NOTED = 64
MAX_SPAN = 256  # sequence numbers told of in one feedback; a longer hole is another stream
MAX_DELTA = 0x7FFF
MAX_FEEDBACKS = 3  # that one `take` gives; numbers sent in turns across a pause would make one of each


class ArrivalLog:
    """Of one call: the numbers go on across all sources of a transport."""

    __slots__ = ("_base", "_count", "_last_taken", "_noted", "_reported", "_row")

    def __init__(self) -> None:
        self._noted: list[tuple[int, float]] = []  # (16-bit sequence number, when it came)
        self._reported: dict[int, int] = {}  # of the last feedbacks: extended sequence number → ticks
        self._row: tuple[int, list[int]] | None = (
            None  # the last one, if nothing was missing: the first number, and the ticks
        )
        self._base = -1  # extended: the first number that was not reported
        self._count = 0
        self._last_taken = 0.0

    def record(self, sequence: int, now: float) -> bool:
        """A packet came. Whether feedback is due."""
        noted = self._noted
        noted.append((sequence, now))
        return now - self._last_taken >= INTERVAL or len(noted) >= MAX_NOTED

    def take(self, now: float) -> list[TransportFeedback]:
        """What is to be told now: one feedback, more only across a pause of seconds, MAX_FEEDBACKS at most."""
        noted, self._noted = self._noted, []
        self._last_taken = now
        if not noted:
            return []
        if (row := self._as_row(noted)) is not None:
            return [row]
        self._remember_row()
        arrivals: dict[int, int] = {}
        near = self._base if self._base >= 0 else noted[0][0] + (1 << 16)
        for sequence, when in noted:
            extended = near + ((sequence - near + 0x8000 & 0xFFFF) - 0x8000)
            near = max(near, extended)
            arrivals.setdefault(extended, int(when * TICKS_PER_SECOND))
        first, last = min(arrivals), max(arrivals)
        if last < self._base - MAX_SPAN:  # the numbers began anew
            self._base = -1
        if self._base >= 0:
            first = min(first, self._base)
        first = max(first, last - MAX_SPAN + 1)
        if first < self._base:
            arrivals = self._reported | arrivals
        self._base = max(self._base, last + 1)
        self._reported = {number: ticks for number, ticks in arrivals.items() if number >= self._base - MAX_SPAN}
        return self._write(first, [arrivals.get(number) for number in range(first, last + 1)])

    def _as_row(self, noted: list[tuple[int, float]]) -> TransportFeedback | None:
        """The feedback, if the packets are those behind the last ones, in order, with none missing: so it is nearly always."""
        base, count = self._base, len(noted)
        if base < 0 or [sequence for sequence, _ in noted] != [number & 0xFFFF for number in range(base, base + count)]:
            return None
        ticks = [int(when * TICKS_PER_SECOND) for _, when in noted]
        if ticks[-1] - ticks[0] > MAX_DELTA:
            return None
        self._remember_row()
        self._row = (base, ticks)
        self._base = base + count
        reference = ticks[0] // REFERENCE_TICKS
        start = reference * REFERENCE_TICKS
        self._count = self._count + 1 & 0xFF
        number = self._count - 1 & 0xFF
        return TransportFeedback(base & 0xFFFF, reference & 0xFFFFFF, number, tuple([tick - start for tick in ticks]))

    def _remember_row(self) -> None:
        if self._row is not None:
            first, ticks = self._row
            self._reported = dict(enumerate(ticks, first))
            self._row = None

    def _write(self, first: int, arrivals: list[int | None]) -> list[TransportFeedback]:
        written: list[tuple[int, int, tuple[int | None, ...]]] = []
        start = 0
        while start < len(arrivals):
            reference = next(ticks for ticks in arrivals[start:] if ticks is not None) // REFERENCE_TICKS
            previous, end = reference * REFERENCE_TICKS, start
            row: list[int | None] = []
            while end < len(arrivals):
                ticks = arrivals[end]
                if ticks is not None:
                    if abs(ticks - previous) > MAX_DELTA:
                        break
                    previous = ticks
                row.append(None if ticks is None else ticks - reference * REFERENCE_TICKS)
                end += 1
            written.append((first + start & 0xFFFF, reference & 0xFFFFFF, tuple(row)))
            start = end
        told = []
        for base, reference, deltas in written[-MAX_FEEDBACKS:]:  # numbered now: one that is not sent was not lost
            told.append(TransportFeedback(base, reference, self._count, deltas))
            self._count = self._count + 1 & 0xFF
        return told

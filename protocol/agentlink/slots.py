"""How well a caller's audio came: of the 20 ms slots of his speech, how many were filled in time, and by what.

The clock of slots is the RTP time of the frames. A player that knew the quickest way a frame has taken so far would play
every other one at the same distance; with DEADLINE more to wait for stragglers, that is when each slot is due. A frame that
comes by then fills its slot; so does the copy of a lost one in the frame after it (in-band FEC). What comes later is late.
Slots count from the first frame to the last: silence that was never sent (DTX) counts as missing.

An agent that keeps such a tally is asked for it by METER_QUESTION, a text message, and answers with SlotTally.answer().
"""

from __future__ import annotations

import msgspec

__all__ = ["METER_QUESTION", "SlotCounts", "SlotTally"]

METER_QUESTION = '{"type":"meter.slots"}'

# Implementation constants
DEADLINE = 0.100  # seconds behind the quickest way that a frame took: what a conversation bears in one direction
PATIENT = 0.200
SLOT_MS = 20


class SlotCounts(msgspec.Struct, tag_field="type", tag="meter.slots", kw_only=True):
    expected: int = 0
    in_time: int = 0
    """Within 100 ms; the next two among them."""
    recovered: int = 0
    """Lost, and then sent again or carried in another packet (RED)."""
    by_copy: int = 0
    """Lost, with a coarse copy in the frame that followed (in-band FEC)."""
    late: int = 0
    within_200_ms: int = 0
    """Those in time, and those that a patient player would still have played."""


class SlotTally:
    """One call; frames in the order of their RTP time, as agents get them."""

    def __init__(self, clock_rate: int) -> None:
        self.counts = SlotCounts()
        self._clock_rate = clock_rate
        self._slot = clock_rate * SLOT_MS // 1000
        self._last: int | None = None  # RTP time of the last slot
        self._media_time = 0  # of the last slot since the first, in RTP ticks, without wrapping
        self._earliest = 0.0  # when the first slot would have come by the quickest way seen so far

    def add(self, rtp_time: int, now: float, *, gap: bool, fec: bool, recovered: bool) -> None:
        """A frame that an agent got at `now`, and what its flags say (`MediaFlags`)."""
        counts = self.counts
        if self._last is None:
            self._earliest, step = now, self._slot
        else:
            step = (rtp_time - self._last + 0x80000000 & 0xFFFFFFFF) - 0x80000000
            if step <= 0:  # a slot that is over already
                return
            self._media_time += step
        self._last = rtp_time
        slots = max(1, round(step / self._slot))
        counts.expected += slots
        began = now - self._media_time / self._clock_rate
        self._earliest = min(self._earliest, began)
        behind = began - self._earliest
        counts.recovered += self._fill(behind) and recovered
        if slots > 1 and gap and fec:  # its slot was due one earlier
            counts.by_copy += self._fill(behind + SLOT_MS / 1000)

    def answer(self) -> str:
        return msgspec.json.encode(self.counts).decode()

    def _fill(self, behind: float) -> bool:
        """A slot, so many seconds after the quickest way; whether in time."""
        counts = self.counts
        counts.within_200_ms += behind <= PATIENT
        if behind <= DEADLINE:
            counts.in_time += 1
            return True
        counts.late += 1
        return False

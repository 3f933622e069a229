"""What one call sent and what came back: the arithmetic, without a clock or a network."""

from __future__ import annotations

from loadgen.distribution import Histogram
from loadgen.frames import PROTECTED, make_frame, read_frame_untrusted

__all__ = ["REMEMBERED", "AudioTally", "DataTally"]

# Implementation constants
LATE_SECONDS = 0.200  # there and back: beyond it a conversation limps
TICK_TOLERANCE = 0.005  # a frame that we send later than that after its time is counted
REMEMBERED = 4096  # frames of a call, 82 s of them, a power of two: nothing on the way keeps a frame that long
_NEWEST = REMEMBERED - 1


class AudioTally:
    """Frames of one call.

    The agent joins a call while we already talk. What was sent before the first frame that came back nobody was there to
    hear: it is `early`, not lost. Every later frame has to come back once.
    """

    __slots__ = (
        "_call",
        "_first_heard",
        "_heard",
        "_heard_at",
        "_last_at",
        "_note_round_trip",
        "_run",
        "_speech",
        "corrupt",
        "duplicated",
        "foreign",
        "held",
        "late",
        "longest_gap",
        "longest_silence",
        "received",
        "sent",
        "sent_late",
        "skipped",
    )

    def __init__(self, run: bytes, call: int, round_trips: Histogram, speech: tuple[bytes, ...] = PROTECTED) -> None:
        self._run = run
        self._speech = speech
        self._call = call
        self._note_round_trip = round_trips.waiting.append  # whoever drives the call gathers them
        self._heard = bytearray(REMEMBERED)  # a ring, one byte for each frame sent last: whether it came back
        self._first_heard: int | None = None
        self._last_at = 0.0
        self._heard_at = 0.0
        self.sent = 0
        self.received = 0
        self.late = 0
        self.duplicated = 0
        self.corrupt = 0  # not a frame as we make them, or made long ago
        self.foreign = 0  # a good frame, of another call
        self.longest_gap = 0.0  # without a frame that came back for the first time: there or back was cut
        self.longest_silence = 0.0  # without any frame: back was cut
        self.sent_late = 0  # by ourselves
        self.skipped = 0  # not sent, because we were far behind
        self.held = 0  # not sent, because there was no consent to send

    @property
    def early(self) -> int:
        return self.sent if self._first_heard is None else self._first_heard

    @property
    def missing(self) -> int:
        """Frames that have not come back: on their way, or, in the end, lost."""
        return self.sent - self.early - self.received

    def next_frame(self, now: float) -> bytes:
        return make_frame((self._run, self._call, self.sent, int(now * 1e6)), self._speech)

    def count_sent(self, lateness: float) -> None:
        """The frame that `next_frame` made has left, `lateness` seconds after its time."""
        self._heard[self.sent & _NEWEST] = 0
        self.sent += 1
        self.sent_late += lateness > TICK_TOLERANCE

    def receive_untrusted(self, payload: bytes, now: float) -> None:
        mark = read_frame_untrusted(payload)
        if mark is None:
            self.corrupt += 1
            return
        run, call, sequence, sent = mark
        if call != self._call or run != self._run:
            self.foreign += 1
            return
        if not 0 < self.sent - sequence <= REMEMBERED:
            self.corrupt += 1
            return
        # A frame of ours came, for the first time or again: what the caller hears is sound, not silence.
        first = self._first_heard
        if first is None:
            self._first_heard = sequence
            self._heard_at = self._last_at = now
        elif (silence := now - self._heard_at) > self.longest_silence:
            self.longest_silence = silence
        self._heard_at = now
        heard, place = self._heard, sequence & _NEWEST
        if heard[place]:
            self.duplicated += 1
            return
        heard[place] = 1
        self.received += 1
        if first is not None and sequence < first:
            self._first_heard = sequence
        if (gap := now - self._last_at) > self.longest_gap:
            self.longest_gap = gap
        self._last_at = now
        round_trip = now - sent / 1e6
        self._note_round_trip(round_trip)
        if round_trip > LATE_SECONDS:
            self.late += 1

    def stop(self, now: float) -> None:
        """We sent our last frame. A silence that lasts until now is a gap too, though no frame ends it."""
        if self._first_heard is not None:
            self.longest_gap = max(self.longest_gap, now - self._last_at)
            self.longest_silence = max(self.longest_silence, now - self._heard_at)


class DataTally:
    """Messages of one call; `pending` holds those that have not come back."""

    __slots__ = ("_call", "_round_trips", "corrupt", "pending", "received", "refused", "sent")

    def __init__(self, call: int, round_trips: Histogram) -> None:
        self._call = call
        self._round_trips = round_trips
        self.pending: dict[str | bytes, float] = {}
        self.sent = 0
        self.received = 0
        self.refused = 0  # not sent: the channel's buffer was full
        self.corrupt = 0  # came back unasked, or changed, or twice

    def next_message(self) -> str | bytes:
        """Text and binary in turn."""
        text = f'{{"type":"load.ping","call":{self._call},"number":{self.sent}}}'
        return text.encode() if self.sent % 2 else text

    def count_sent(self, message: str | bytes, now: float) -> None:
        self.pending[message] = now
        self.sent += 1

    def receive_untrusted(self, message: str | bytes, now: float) -> None:
        sent = self.pending.pop(message, None)
        if sent is None:
            self.corrupt += 1
        else:
            self.received += 1
            self._round_trips.add(now - sent)

"""The agent's audio on its way to the caller: a queue that gives it the pace of speech.

1. The agent sends frames as fast as it likes, on its own timeline; at most five seconds of them wait here. It learns
   from `Played` how far its audio has got, and is expected to keep within that; more is dropped, newest first.
2. A frame may leave up to a tick before it is due, and so does at once if it arrives just in time, or late. Those further
   ahead of their time leave at the pacer's ticks: never late, early by less than a tick.
3. RTP timestamps go on without holes through a talkspurt. After a silence they have moved by the time that passed,
   and the first frame bears the marker (RFC 3551 §4.1).
4. What is behind its time, because a tick was late or the agent was held up, is caught up at twice the pace of speech: at
   most BURST_SECONDS of audio leave at once, or twice what the tick was late: on a machine that is too busy for its ticks
   the queue must not grow, for it would stay in the call as delay. For the same reason `stalled` has to tell when our loop
   stood still for long: what then comes all at once is late, no new talkspurt.
5. An agent that speaks in real time by a clock of its own is followed (`ClockFollower`): its frames neither gather here nor
   run out.
6. `flush` drops what was not sent (the caller has begun to speak) and says how far playing got. A few frames of silence follow:
   a receiver that finds nothing more goes on with the last sound by itself, for a tenth of a second.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from typing import NamedTuple

from protocol.agentlink import PlayedReason
from protocol.codecs import Codec
from protocol.errors import DecodeError
from transceiver.media.drift import ClockFollower

__all__ = ["PACE_SECONDS", "Downlink", "OutgoingFrame", "Played"]

# Implementation constants
PACE_SECONDS = 0.020  # between two ticks of the pacer
LEAD_SECONDS = PACE_SECONDS * 0.999  # by which a frame may be early: all of a tick, for the next one would be late
MAX_AHEAD_SECONDS = 5.0
MAX_AHEAD_FRAMES = 2000  # five seconds of the shortest Opus frames
DRAINED_SECONDS = 0.060  # a queue that stays empty for so long after the last frame's end: all was played
# A frame that comes later than this after the last one's end, and after it came, begins a talkspurt. One that comes sooner
# was held up on the way, with others behind it: they are sent as they were due, or the hold-up would stay in the call as
# delay for good. So are those of a stream that comes ever later: on a machine that has too much to do that is no silence.
SPURT_END_SECONDS = 0.200
# After our own loop stood still a frame may come later by as much as that, at most by this, and is held up all the same.
MAX_STALL_SECONDS = 1.0
REPORT_SECONDS = 0.200
BURST_SECONDS = 2 * PACE_SECONDS
HUSH_FRAMES = 3  # of silence after what was cut, so that one at least arrives
HUSH = -1  # in place of their RTP time


class OutgoingFrame(NamedTuple):
    payload: bytes
    timestamp: int
    marker: bool


class Played(NamedTuple):
    """What the agent is told: its audio was played up to `rtp_time`, `buffered_ms` of it still wait."""

    rtp_time: int
    buffered_ms: int
    reason: PlayedReason


class _Queued(NamedTuple):
    rtp_time: int
    samples: int
    payload: bytes
    arrived: float


class Downlink:
    """Sans-IO. `push`, then `take_due` at once and at each tick while `playing`; `take_report` after each of them."""

    __slots__ = (
        "_arrived",
        "_buffered",
        "_codec",
        "_due",
        "_earliest",
        "_follower",
        "_held_until",
        "_hushing",
        "_late",
        "_patience",
        "_patient_until",
        "_played_to",
        "_queue",
        "_rate",
        "_reported_at",
        "_resuming",
        "_tick",
        "_timestamp",
        "drops",
        "playing",
        "report",
    )

    def __init__(self, codec: Codec, first_timestamp: int) -> None:
        self._codec = codec
        self._rate = codec.clock_rate
        self._tick = 1 / codec.clock_rate  # seconds that a sample lasts, by the agent's clock
        self._follower = ClockFollower()
        self._queue: deque[_Queued] = deque()
        self._buffered = 0  # samples in the queue
        self._timestamp = first_timestamp  # of the next frame if it continues the one before
        self._due = -math.inf  # when the next frame would continue the one before
        self._arrived = -math.inf  # when the last one came
        self._earliest = -math.inf  # when the next frame may leave
        self._held_until = -math.inf  # the same, of frames that are behind their time
        self._late = 0.0  # seconds, of this tick
        self._patience = SPURT_END_SECONDS  # until then:
        self._patient_until = -math.inf
        self._resuming = False  # the next frame begins a talkspurt
        self._hushing = False  # what waits is not the agent's, but silence after it was cut
        self._played_to = 0
        self.report: Played | None = None
        self._reported_at = -math.inf
        self.playing = False
        self.drops: Counter[str] = Counter()

    def push(self, rtp_time: int, payload: bytes, now: float) -> None:
        """A frame from the agent."""
        try:
            samples = self._codec.count_samples_untrusted(payload)
        except DecodeError as error:
            self.drops[error.reason] += 1
            return
        if samples == 0:  # DTX: nothing to play
            self.drops["empty"] += 1
            return
        if self._hushing:
            self._drop_all()
        ahead = self._buffered + samples
        if ahead > MAX_AHEAD_SECONDS * self._rate or len(self._queue) >= MAX_AHEAD_FRAMES:
            self.drops["overflow"] += 1
            return
        if not self._queue and self._has_ended(min(now - self._due, now - self._arrived), now):
            self._resuming = True
            self._follower.restart(now, now - self._due)
        elif not self._resuming:
            self._observe(self._due + self._buffered * self._tick - now, now)
        self._queue.append(_Queued(rtp_time, samples, payload, now))
        self._buffered = ahead
        self._arrived = now
        self.playing = True

    def follow(self, rtp_time: int, payload: bytes, now: float) -> int:
        """The short way of a frame that goes on from the one before, while none waits, and is due: the timestamp with which
        it is to leave at once. -1: there is something to decide, and nothing has happened; `push` it."""
        due = self._due
        if self._queue or not self.playing or now < self._earliest or now >= self._drained_at():
            return -1
        try:
            samples = self._codec.count_samples_untrusted(payload)
        except DecodeError:
            return -1
        if not samples:
            return -1
        follower, lead = self._follower, due - now  # as in _observe
        if lead > follower.best:
            follower.best = lead
        if now >= follower.judge_at:
            self._judge(now)
        timestamp = self._timestamp
        self._timestamp = timestamp + samples
        self._due = due = due + samples * self._tick
        self._earliest = due - LEAD_SECONDS if now < due - LEAD_SECONDS else self._hold(samples, now)
        self._arrived = now
        self._played_to = rtp_time + samples & 0xFFFFFFFF
        if now - self._reported_at >= REPORT_SECONDS:
            self._put_report(PlayedReason.PROGRESS, now)
        return timestamp & 0xFFFFFFFF

    def _observe(self, lead: float, now: float) -> None:
        follower = self._follower
        if lead > follower.best:
            follower.best = lead
        if now >= follower.judge_at:
            self._judge(now)

    def _judge(self, now: float) -> None:
        self._follower.judge(now)
        self._tick = (1.0 - self._follower.correction) / self._rate

    def flush(self, now: float, *, hush: bool = False) -> None:
        """Drop what was not sent, and with `hush` be heard to be silent. Always answered by a report."""
        speaks = self.playing and not self._resuming
        if not self._hushing:
            self.drops["flushed"] += len(self._queue)
        self._drop_all()
        self._put_report(PlayedReason.FLUSHED, now)
        if hush and speaks:
            silence = _Queued(HUSH, self._codec.frame_samples, self._codec.silence, now)
            self._queue.extend([silence] * HUSH_FRAMES)
            self._buffered = silence.samples * HUSH_FRAMES
            self.playing = self._hushing = True

    def _drop_all(self) -> None:
        self._queue.clear()
        self._buffered = 0
        self.playing = self._hushing = False

    def stalled(self, seconds: float, now: float) -> None:
        """Our loop did nothing for so long."""
        seconds = min(seconds, MAX_STALL_SECONDS)
        self._patience = SPURT_END_SECONDS + seconds
        self._patient_until = now + 2 * self._patience  # at twice the pace it takes as long as it lasted to catch up

    def _has_ended(self, behind: float, now: float) -> bool:
        """Whether that is too long for a talkspurt to go on."""
        return behind > SPURT_END_SECONDS and (behind > self._patience or now > self._patient_until)

    def restart(self, now: float) -> None:
        """Another agent speaks from now on, on a timeline of its own: what was played of the last one's says nothing to it."""
        self.flush(now)
        self._played_to = 0
        self.report = None

    def next_action(self) -> float:
        """When `take_due` has something to do."""
        if self._queue:
            return -math.inf if self._resuming else self._earliest
        return self._drained_at() if self.playing else math.inf

    def _drained_at(self) -> float:
        return max(self._due, self._arrived) + DRAINED_SECONDS

    def take_due(self, now: float, late: float = 0.0) -> list[OutgoingFrame]:
        """The frames that leave now, at a tick that is `late` by so many seconds."""
        frames: list[OutgoingFrame] = []
        self._late = late
        while self._queue and self.next_action() <= now:
            frames.append(self._send_first(now))
        self._late = 0.0
        if self._hushing:
            self.playing = self._hushing = bool(self._queue)
        elif not self._queue and self.next_action() <= now:
            self.playing = False
            self._put_report(PlayedReason.DRAINED, now)
        elif frames and now - self._reported_at >= REPORT_SECONDS:
            self._put_report(PlayedReason.PROGRESS, now)
        return frames

    def take_report(self) -> Played | None:
        report, self.report = self.report, None
        return report

    def _send_first(self, now: float) -> OutgoingFrame:
        rtp_time, samples, payload, arrived = self._queue.popleft()
        self._buffered -= samples
        marker, self._resuming = self._resuming, False
        if marker:
            if math.isfinite(self._due):
                step = self._codec.frame_samples  # to the nearest: our ticks and the frames' times differ by a hair
                self._timestamp += round((now - self._due) * self._rate / step) * step
            self._due = now
        elif self._has_ended(min(now - self._due, now - arrived), now):  # our own loop was late: do not hurry after it
            self._due = now
        frame = OutgoingFrame(payload, self._timestamp & 0xFFFFFFFF, marker)
        self._timestamp += samples
        self._due += samples * self._tick
        self._earliest = self._hold(samples, now)
        if rtp_time != HUSH:
            self._played_to = rtp_time + samples & 0xFFFFFFFF
        return frame

    def _hold(self, samples: int, now: float) -> float:
        """After a frame: when the next one may leave."""
        if now < self._due - LEAD_SECONDS:
            return self._due - LEAD_SECONDS
        # Behind: each frame holds the next one back for half of what it lasts. What was saved up before bounds the burst.
        half = samples * self._tick / 2
        saved = max(0.0, BURST_SECONDS / 2 + self._late - half)
        self._held_until = max(self._held_until, now - saved) + half
        return self._held_until

    def _put_report(self, reason: PlayedReason, now: float) -> None:
        self._reported_at = now
        self.report = Played(self._played_to, self._buffered * 1000 // self._rate, reason)

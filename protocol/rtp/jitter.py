"""The reorder buffer between RTP and whoever hears the frames, with one growing 64-bit RTP time for the whole call.

It is not a playout buffer: it adds no delay while packets come in order.

1. A packet with the next sequence number is handed on at once.
2. A packet ahead of a gap is held, and what is missing is asked for (`requests`). The gap is given up when it has been
   known for `delay`, or when `capacity` frames are held: `Gap` is handed on in its place, then the frames behind it.
   `delay` is as long as it pays to wait, `min_delay` to `max_delay`: until packets out of order have come by the jitter of
   this path, and until what was asked for has come, twice if there is time; not at all for what would come too late.
   All speech behind a gap waits with it, so that less waiting pays when the packet behind the gap carries a copy of the
   last packet in it (`carries_copy`), which is nearly as good as what was lost: a gap of one packet is given up after
   `min_delay`, a longer one after `max_delay_with_copy` at most.
3. A packet behind what was handed on is dropped, and counted as late (its place was given up) or duplicate.
4. Loss is judged by sequence numbers: a silent sender (DTX) jumps in time without a gap, which is no loss. A gap in which
   no time is missing held packets without payload (padding that probes the bandwidth): nothing is waited for.
5. Time is extended as frames leave, in their order: it never goes back, wraps of the 32-bit timestamp are followed, and
   when the sender's clock jumps (another SSRC, another capture) the time goes on by what has passed on our clock, and the frame
   bears the marker.
6. Another SSRC resets the sequence: what is held is handed on first. Packets of the SSRC just left are stragglers, and
   dropped, for `_STRAGGLER_TIME`.

All packets of the source must pass through here, those of other payload types (telephone-event) as well, since they
share its sequence numbers. Packets without payload (padding that probes the bandwidth) are taken, and not handed on.
"""

from __future__ import annotations

import collections
import enum
import math
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from protocol.rtp.packet import RtpPacket
from protocol.rtp.requests import ANSWER_SLACK, RequestConfig, ResendRequests

__all__ = ["Frame", "FrameOrigin", "Gap", "JitterBuffer", "JitterConfig", "PathEstimate"]

# Implementation constants
_STRAGGLER_TIME = 2.0  # seconds in which packets of the SSRC before this one are taken for stragglers
_GIVEN_UP_REMEMBERED = 128  # sequence numbers given up, to tell late packets from duplicates
_MAX_CLOCK_LEAD = 10.0  # seconds the timestamp may run ahead of our clock before we take it for another clock
_MAX_CLOCK_STEP_BACK = 1.0  # seconds a timestamp may go back (RFC 4733 events name their start) and be the same clock
_LONGEST_FRAME = 0.060  # seconds; a longer step from packet to packet is a silence
_JITTER_FACTOR = 3.0  # RFC 3550's jitter is a mean deviation: few packets are later than three of them
_UNKNOWN_DELAY = 0.060  # seconds, before anything is known of the path


class FrameOrigin(enum.IntEnum):
    """How a frame came."""

    SENT = 0
    RESENT = 1  # because we asked for it
    REDUNDANT = 2  # as a copy in a packet behind it (RFC 2198)


_ORIGIN_NAMES = ("sent", "recovered", "red_recovered")


class PathEstimate(NamedTuple):
    """What is known of the path that packets come by, in seconds; None: nothing yet."""

    round_trip: float | None = None
    jitter: float | None = None


@dataclass(frozen=True, slots=True)
class JitterConfig:
    clock_rate: int = 48000
    min_delay: float = 0.020  # seconds
    # Seconds; 0 gives every gap up at once. The frames behind a gap come so much later: more than 100 ms of that would cost a
    # conversation more than the frame that is lost.
    max_delay: float = 0.100
    max_delay_with_copy: float = 0.060  # seconds, where a copy of the last packet of the gap is at hand
    capacity: int = 64  # frames held behind gaps, and things ready that nobody took
    requests: RequestConfig | None = None  # how to ask for lost packets; None: not at all


class Frame(NamedTuple):
    """A payload in its place. A named tuple for the reason given in `protocol.rtp.packet`."""

    rtp_time: int  # 64 bits, never smaller than that of the frame before
    payload: bytes
    marker: bool  # as sent, or because the sender's clock jumped
    payload_type: int
    sequence: int
    origin: int = FrameOrigin.SENT


class _Held(NamedTuple):
    packet: RtpPacket
    arrival: float
    origin: int
    has_copy: bool  # of the packet before it, which was missing then
    deadline: float  # of the gap before it


@dataclass(frozen=True, slots=True)
class Gap:
    """`packets` packets from sequence number `sequence` on did not come in time."""

    sequence: int
    packets: int


class JitterBuffer:
    """`push` each packet, then `pop` until it returns None, and `take_requests`; both again at `next_timeout`.

    `estimate` is asked what is known of the path, whenever a gap opens; `carries_copy`, whether the packet behind a gap also
    brings the audio of the packet before it, for whoever decodes it (in-band FEC).

    `counters`: late, duplicate, lost, straggler, empty, overflow (a gap given up because `capacity` was reached), unread
    (oldest thing dropped because nobody took it), source_changed, clock_jump, padding_lost; recovered and red_recovered
    (frames by their origin), requested (packets asked for, each time).
    """

    __slots__ = (
        "_carries_copy",
        "_clock_rate",
        "_config",
        "_edge",
        "_estimate",
        "_given_up",
        "_held",
        "_last_arrival",
        "_last_time",
        "_last_timestamp",
        "_longest",
        "_next",
        "_old_ssrc",
        "_ready",
        "_requests",
        "_source_since",
        "_ssrc",
        "_stale",
        "_step",
        "_timeout",
        "counters",
        "delay",
    )

    def __init__(
        self,
        config: JitterConfig | None = None,
        estimate: Callable[[], PathEstimate] = PathEstimate,
        carries_copy: Callable[[RtpPacket], bool] | None = None,
    ) -> None:
        self._config = config or JitterConfig()
        self._estimate = estimate
        self._carries_copy = carries_copy
        requests = self._config.requests
        self._requests = ResendRequests(requests) if requests is not None else None
        self.delay = self._choose_delay(PathEstimate(), self._config.max_delay)
        self._clock_rate = self._config.clock_rate
        self._longest = int(_LONGEST_FRAME * self._clock_rate)
        self.counters: collections.Counter[str] = collections.Counter()
        self._ready: collections.deque[Frame | Gap] = collections.deque()
        self._held: dict[int, _Held] = {}  # by sequence number
        self._edge = 0  # while frames are held: the number behind the last of them
        self._timeout = math.inf  # when the first gap is given up
        self._ssrc = -1
        self._old_ssrc = -1
        self._source_since = -math.inf
        self._next = 0  # sequence number expected
        self._given_up = array("H")  # the last ones, two bytes each
        self._last_time = 0  # 64-bit time, timestamp and arrival of the last frame
        self._last_timestamp = 0
        self._last_arrival = -math.inf
        self._stale = True  # the next timestamp does not continue the last one
        self._step = (
            0  # from one frame's timestamp to the next one's; less than 0: not to be learnt from the next frame
        )

    @property
    def is_plain(self) -> bool:
        """Nothing is held, missed or ready: the next packet in order goes straight through."""
        return not (self._held or self._ready)

    def push(self, packet: RtpPacket, now: float) -> None:
        """Take an authenticated packet."""
        if packet.ssrc != self._ssrc and not self._change_source(packet, now):
            return
        ahead = packet.sequence - self._next & 0xFFFF
        if ahead == 0:
            self._next = packet.sequence + 1 & 0xFFFF
            if self._held:
                self._release(packet, now, self._origin(packet.sequence, now))
                self._release_consecutive()
            else:
                self._learn_step(packet.timestamp)
                self._release(packet, now)
        elif ahead < 0x8000:
            self._hold(packet, now)
        else:
            self._behind(packet.sequence, now)

    def _learn_step(self, timestamp: int) -> None:
        step = timestamp - self._last_timestamp & 0xFFFFFFFF
        if self._step < 0 or self._stale:
            self._step = 0
        elif 0 < step <= self._longest:
            self._step = step

    def push_copy(self, packet: RtpPacket, now: float) -> None:
        """Take a copy that another packet brought (RFC 2198). Push the oldest first, and the packet itself behind them all.
        Of use only where that packet's own place is still empty; it never opens a new source, nor counts as duplicate."""
        if not self.lacks(packet.ssrc, packet.sequence):
            return
        ahead = packet.sequence - self._next & 0xFFFF
        if self._requests is not None:
            self._requests.forget(packet.sequence)
        if ahead == 0:
            self._next = packet.sequence + 1 & 0xFFFF
            self._release(packet, now, FrameOrigin.REDUNDANT)
            if self._held:
                self._release_consecutive()
        else:
            self._hold(packet, now, FrameOrigin.REDUNDANT)

    def lacks(self, ssrc: int, sequence: int) -> bool:
        """Whether a copy of that packet would be of use."""
        ahead = sequence - self._next & 0xFFFF
        return ssrc == self._ssrc and ahead < self._config.capacity and sequence not in self._held

    def take_requests(self, now: float) -> tuple[int, ...]:
        """The sequence numbers to be asked for now (RFC 4585 §6.2.1), in order."""
        requests = self._requests
        if requests is None or now < requests.due:
            return ()
        if taken := requests.take(now, self._estimate().round_trip):
            self.counters["requested"] += len(taken)
        return taken

    @property
    def ssrc(self) -> int:
        """Of the present source; less than 0 before the first packet."""
        return self._ssrc

    def follow(self, ssrc: int, sequence: int, timestamp: int, now: float) -> int:
        """The short way of a packet with a payload that is next in order while nothing is held or ready: its RTP time, and
        the packet counts as handed on. -1: there is something to decide, and nothing has happened; `push` it."""
        if sequence != self._next or ssrc != self._ssrc or self._held or self._ready or self._stale:
            return -1
        advance = timestamp - self._last_timestamp & 0xFFFFFFFF
        if advance > self._longest or self._step < 0:  # a silence, another clock; see `_release`
            return -1
        self._next = sequence + 1 & 0xFFFF
        if advance:
            self._step = advance
        self._last_timestamp = timestamp
        self._last_arrival = now
        self._last_time += advance
        return self._last_time

    def pop(self, now: float) -> Frame | Gap | None:
        """The next thing in order; None when there is nothing (yet)."""
        if not self._ready:
            if now < self._timeout:
                return None
            self._give_up_first_gap()
        return self._ready.popleft() if self._ready else None

    def next_timeout(self) -> float:
        """When, after `pop` returned None, it or `take_requests` will have something without a further `push`."""
        return min(self._timeout, self._requests.due) if self._requests is not None else self._timeout

    # Order

    def _hold(self, packet: RtpPacket, now: float, origin: int = FrameOrigin.SENT) -> None:
        sequence = packet.sequence
        if sequence in self._held:
            self.counters["duplicate"] += 1
            return
        if not self._held:
            if origin == FrameOrigin.SENT and self._lacks_nothing(packet):
                missing = sequence - self._next & 0xFFFF
                self.counters["padding_lost"] += missing
                self._next = sequence + 1 & 0xFFFF
                self._release(packet, now)
                return
            self._edge = self._next
        carries_copy = self._carries_copy
        has_copy = carries_copy is not None and sequence - 1 & 0xFFFF not in self._held and carries_copy(packet)
        beyond = sequence - self._edge & 0xFFFF
        if beyond < 0x8000:
            self._miss(beyond, now, has_copy)
            self._edge = sequence + 1 & 0xFFFF
            deadline = now + self.delay
        else:  # within a gap, of which it makes two: neither waits for longer than the one did
            if origin == FrameOrigin.SENT:
                origin = self._origin(sequence, now)
            deadline = self._held[self._first_held(sequence)].deadline
        self._held[sequence] = _Held(packet, now, origin, has_copy, deadline)
        self._schedule()
        while len(self._held) > self._config.capacity:
            self.counters["overflow"] += 1
            self._give_up_first_gap()

    def _lacks_nothing(self, packet: RtpPacket) -> bool:
        """Whether no time is missing between the last frame and this packet. One without payload has the timestamp of the
        frame before it."""
        step = packet.timestamp - self._last_timestamp & 0xFFFFFFFF
        return not self._stale and (0 < step <= self._step if packet.payload else step == 0)

    def _miss(self, packets: int, now: float, has_copy: bool) -> None:
        """So many packets from the edge on are missing; whether there is a copy of the last of them."""
        if packets:
            config = self._config
            longest = min(config.max_delay_with_copy, config.max_delay) if has_copy else config.max_delay
            self.delay = self._choose_delay(self._estimate(), longest)
            if self._requests is not None:
                self._requests.miss(range(self._edge, self._edge + packets), now, now + self.delay)

    def _choose_delay(self, path: PathEstimate, longest: float) -> float:
        config, requests = self._config, self._requests
        spread = _UNKNOWN_DELAY if path.jitter is None else _JITTER_FACTOR * path.jitter
        delay = max(spread, config.min_delay)
        if requests is not None and (recovery := requests.recovery_time(path.round_trip)) is not None:
            for asks in (2, 1):
                needed = requests.tolerance + asks * recovery
                if needed - ANSWER_SLACK <= longest:  # most answers would come in time
                    delay = max(delay, needed + (path.jitter or 0.0))
                    break
        return min(delay, longest)

    def _origin(self, sequence: int, now: float) -> int:
        """Of a packet that was missed: it came because we asked, or it was only out of order."""
        asked = self._requests is not None and self._requests.arrived(sequence, now)
        return FrameOrigin.RESENT if asked else FrameOrigin.SENT

    def _behind(self, sequence: int, now: float) -> None:
        if sequence in self._given_up:
            self._given_up.remove(sequence)
            self.counters["late"] += 1
            self._origin(sequence, now)
            return
        # RFC 3550 §A.1 would look here for a sender that started anew, and take two packets in a row for proof. Under
        # SRTP no sender can go back: its packets would not pass the replay window. A slow path can deliver such a row.
        self.counters["duplicate"] += 1

    def _give_up_first_gap(self) -> None:
        """Hand on the gap before the first frame held, and what follows that frame without another gap."""
        if not self._held:
            return
        missing = min(sequence - self._next & 0xFFFF for sequence in self._held)
        self._put(Gap(self._next, missing))
        self.counters["lost"] += missing
        first = self._next + missing
        self._given_up.extend(n & 0xFFFF for n in range(max(self._next, first - _GIVEN_UP_REMEMBERED), first))
        del self._given_up[:-_GIVEN_UP_REMEMBERED]
        if self._requests is not None:
            self._requests.give_up(range(self._next, first))
        self._next = first & 0xFFFF
        self._release_consecutive()

    def _release_consecutive(self) -> None:
        while (entry := self._held.pop(self._next, None)) is not None:
            self._next = self._next + 1 & 0xFFFF
            self._release(entry.packet, entry.arrival, entry.origin)
        self._timeout = math.inf
        if self._held:
            self._schedule()

    def _schedule(self) -> None:
        """When the first gap is given up; it is known since the first of the packets behind it came."""
        first = self._first_held(self._next)
        behind = self._held[first]
        if first != self._next + 1 & 0xFFFF or not behind.has_copy:
            self._timeout = behind.deadline
            return
        known_since = min(entry.arrival for entry in self._held.values())
        self._timeout = known_since + min(self._config.min_delay, self._config.max_delay)
        if self._requests is not None:
            self._requests.cover(self._next, self._timeout)

    def _first_held(self, sequence: int) -> int:
        """The number of the first packet held from there on."""
        return min(self._held, key=lambda held: held - sequence & 0xFFFF)

    # Sources

    def _change_source(self, packet: RtpPacket, now: float) -> bool:
        if packet.ssrc == self._old_ssrc and now - self._source_since < _STRAGGLER_TIME:
            self.counters["straggler"] += 1
            return False
        if self._ssrc >= 0:
            self.counters["source_changed"] += 1
        self._old_ssrc, self._ssrc = self._ssrc, packet.ssrc
        self._source_since = now
        while self._held:
            self._give_up_first_gap()
        del self._given_up[:]
        if self._requests is not None:
            self._requests.clear()
        self._step = 0
        self._next = packet.sequence
        self._stale = True
        return True

    # Time

    def _release(self, packet: RtpPacket, arrival: float, origin: int = FrameOrigin.SENT) -> None:
        if not packet.payload:
            self.counters["empty"] += 1
            if packet.timestamp != self._last_timestamp:
                self._step = -1  # it has a place of its own: the next step is not from frame to frame
            return
        if origin:
            self.counters[_ORIGIN_NAMES[origin]] += 1
        marker, payload_type, sequence, timestamp = packet[:4]
        advance = timestamp - self._last_timestamp & 0xFFFFFFFF
        if self._stale or advance > self._clock_rate:  # more than a second: look closer
            advance, jumped = self._judge_advance(advance, arrival)
            marker = marker or jumped
            if advance < 0:
                self._put(Frame(self._last_time, packet.payload, marker, payload_type, sequence, origin))
                return
        self._last_time += advance
        self._last_timestamp = timestamp
        self._last_arrival = arrival
        self._put(Frame(self._last_time, packet.payload, marker, payload_type, sequence, origin))

    def _judge_advance(self, advance: int, arrival: float) -> tuple[int, bool]:
        """(how far the time goes on, whether the sender's clock jumped); less than 0: an event of the recent past."""
        if self._last_arrival == -math.inf:
            self._stale = False
            return advance, False  # the first frame of all: time begins with its timestamp
        elapsed = max(0.0, arrival - self._last_arrival)
        if not self._stale:
            signed = advance - (1 << 32) if advance >> 31 else advance
            if -_MAX_CLOCK_STEP_BACK * self._clock_rate <= signed <= (elapsed + _MAX_CLOCK_LEAD) * self._clock_rate:
                return signed, False
            self.counters["clock_jump"] += 1
        self._stale = False
        return int(elapsed * self._clock_rate), True

    def _put(self, thing: Frame | Gap) -> None:
        if len(self._ready) >= 2 * self._config.capacity:
            self._ready.popleft()
            self.counters["unread"] += 1
        self._ready.append(thing)

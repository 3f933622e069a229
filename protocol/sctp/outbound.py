"""The sending half of data transfer (RFC 9260 §6.1, §6.3, §7).

1. `enqueue` puts a message on its stream's queue; streams take turns, message by message, because without I-DATA the
   fragments of a message have consecutive TSNs (§6.9).
2. `next_chunk` gives one DATA chunk that fits the room left in a packet: retransmissions first, then new fragments,
   as long as congestion window and the peer's window allow. A fragment gets its TSN here, not earlier.
3. `acknowledge` takes a SACK: drops what is acknowledged, counts missing reports, marks for fast retransmission.
4. `handle_timeout` is T3.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque

from protocol.errors import DecodeError
from protocol.sctp.chunks import DATA_HEADER_LENGTH, DataFlags, Sack, build_data
from protocol.sctp.config import SctpConfig
from protocol.sctp.congestion import CongestionWindow, RoundTrip
from protocol.sctp.packet import COMMON_HEADER_LENGTH
from protocol.sctp.serial import SSN_MASK, TSN_MASK, unwrap_tsn

__all__ = ["Sender"]

# Specification constants
MISSING_REPORTS = 3  # §7.2.4

_BEGIN, _END, _UNORDERED = DataFlags.BEGIN.value, DataFlags.END.value, DataFlags.UNORDERED.value


class _Sent:
    """A DATA chunk on its way."""

    __slots__ = ("chunk", "fast", "in_flight", "misses", "size", "tsn")

    def __init__(self, tsn: int, chunk: bytes, size: int) -> None:
        self.tsn = tsn
        self.chunk = chunk
        self.size = size
        self.misses = 0
        self.in_flight = True  # False: marked for retransmission, or acknowledged in a gap block
        self.fast = False  # was fast-retransmitted once; the next time is T3's


class _Message:
    __slots__ = ("data", "offset", "ordered", "ppid")

    def __init__(self, ppid: int, data: bytes, ordered: bool) -> None:
        self.ppid = ppid
        self.data = data
        self.ordered = ordered
        self.offset = 0


class _Stream:
    __slots__ = ("buffered", "queue", "ssn")

    def __init__(self) -> None:
        self.queue: deque[_Message] = deque()
        self.buffered = 0
        self.ssn = 0


class Sender:
    """Bounds: what is queued is bounded by the channels (send_buffer, send_buffer_total), what is in flight by
    min(congestion window, peer's window, max_flight)."""

    def __init__(self, config: SctpConfig, initial_tsn: int, round_trip: RoundTrip, drops: Counter[str]) -> None:
        self._round_trip = round_trip
        self._drops = drops
        self._fragment = (config.max_packet_size - COMMON_HEADER_LENGTH - DATA_HEADER_LENGTH) & ~3
        self._max_flight = config.max_flight
        self._window = CongestionWindow(self._fragment)
        self._streams: dict[int, _Stream] = {}
        self._turns: deque[int] = deque()  # streams with something queued; the first is being sent
        self._outstanding: dict[int, _Sent] = {}  # by TSN, in order, without holes
        self._gap_acked: set[int] = set()
        self._again: list[int] = []  # heap of TSNs marked for retransmission; may hold stale ones
        self._timed_out: set[int] = set()  # what the last T3 marked; a duplicate among them was repeated too early
        self._rush = False  # the next packet goes out whatever the windows say (§7.2.4)
        self._next_tsn = initial_tsn
        self._acked = initial_tsn - 1
        self._flight = 0
        self._peer_window = 0
        self._burst_limit = 0
        self._timed: tuple[int, float] | None = None  # the TSN whose round trip is measured, and its start
        self._last_sent = -math.inf
        self._probed = False  # the peer answered, with a closed window, since T3 was set
        self.buffered_total = 0
        self.deadline = math.inf  # T3

    # What the association asks

    @property
    def last_tsn(self) -> int:
        """The last TSN given out."""
        return self._next_tsn - 1

    @property
    def drained(self) -> bool:
        return not self._turns and not self._outstanding

    @property
    def flight(self) -> int:
        return self._flight

    def buffered(self, stream: int) -> int:
        entry = self._streams.get(stream)
        return entry.buffered if entry else 0

    def wants_to_send(self) -> bool:
        return bool(self._again) or (bool(self._turns) and self._flight < self._window.size)

    # Commands

    def set_peer_window(self, window: int) -> None:
        """The window of the peer's INIT or INIT ACK."""
        self._peer_window = window
        self._window.threshold = max(window, 4 * self._fragment)

    def establish(self, now: float) -> None:
        """Chunks that rode along with COOKIE ECHO get their T3 only now: until then T1 repeats it alone (§5.1 C)."""
        self.deadline = now + self._round_trip.rto if self._outstanding else math.inf

    def enqueue(self, stream: int, ppid: int, data: bytes, ordered: bool) -> None:
        entry = self._streams.get(stream)
        if entry is None:
            entry = self._streams[stream] = _Stream()
        if not entry.queue:
            self._turns.append(stream)
        entry.queue.append(_Message(ppid, data, ordered))
        entry.buffered += len(data)
        self.buffered_total += len(data)

    def restart_stream(self, stream: int) -> None:
        """The peer knows that the stream was reset: its sequence numbers begin anew (RFC 6525 §5.2.7)."""
        entry = self._streams.get(stream)
        if entry is not None and not entry.queue:
            del self._streams[stream]

    def clear(self) -> None:
        self._streams.clear()
        self._turns.clear()
        self._outstanding.clear()
        self._again.clear()
        self._gap_acked.clear()
        self._flight = self.buffered_total = 0
        self._acked = self._next_tsn - 1
        self.deadline = math.inf

    # Sending

    def begin_burst(self, now: float) -> None:
        if not self._outstanding and self._turns:
            idle = now - self._last_sent
            if idle > self._round_trip.rto and self._last_sent >= 0:
                self._window.idle(int(idle / self._round_trip.rto))
        self._burst_limit = min(self._window.burst(self._flight), self._max_flight)

    def end_packet(self) -> None:
        self._rush = False

    def next_chunk(self, room: int, now: float) -> bytes | None:
        """A DATA chunk of at most `room` bytes, or None when none may go or none fits."""
        while self._again:
            sent = self._outstanding.get(self._again[0])
            if sent is None or sent.in_flight or sent.tsn in self._gap_acked:
                heapq.heappop(self._again)
                continue
            if len(sent.chunk) > room or (self._flight >= self._burst_limit and not self._rush):
                return None
            heapq.heappop(self._again)
            sent.in_flight = True
            sent.misses = 0
            self._flight += sent.size
            # §6.3.2 R1 starts T3; §7.2.4 (4) restarts it when the lowest outstanding TSN goes again.
            if sent.tsn == self._acked + 1 or self.deadline == math.inf:
                self.deadline = now + self._round_trip.rto
            self._last_sent = now
            return sent.chunk
        if not self._turns or self._flight >= self._burst_limit:
            return None
        return self._next_fragment(room, now)

    def _next_fragment(self, room: int, now: float) -> bytes | None:
        stream = self._turns[0]
        entry = self._streams[stream]
        message = entry.queue[0]
        remaining = len(message.data) - message.offset
        size = min(remaining, self._fragment)
        if DATA_HEADER_LENGTH + size > room:
            return None
        # §6.1 A: beyond the peer's window only a single chunk, as a probe.
        if self._flight + size > self._peer_window and self._outstanding:
            return None
        flags = 0 if message.ordered else _UNORDERED
        if not message.offset:
            flags |= _BEGIN
            payload = message.data if size == remaining else message.data[:size]
        else:
            payload = message.data[message.offset : message.offset + size]
        if size == remaining:
            flags |= _END
        tsn = self._next_tsn
        self._next_tsn = tsn + 1
        ssn = entry.ssn & SSN_MASK if message.ordered else 0
        chunk = build_data(flags, tsn & TSN_MASK, stream, ssn, message.ppid, payload)
        self._outstanding[tsn] = _Sent(tsn, chunk, size)
        self._flight += size
        entry.buffered -= size
        self.buffered_total -= size
        if size == remaining:
            entry.queue.popleft()
            entry.ssn += message.ordered
            self._turns.popleft()
            if entry.queue:
                self._turns.append(stream)
        else:
            message.offset += size
        if self._timed is None:
            self._timed = (tsn, now)
        if self.deadline == math.inf:
            self.deadline = now + self._round_trip.rto
        self._last_sent = now
        return chunk

    # Acknowledgement

    def acknowledge(self, sack: Sack, now: float) -> bool:
        """Take a SACK; True if it acknowledged something new."""
        cumulative = unwrap_tsn(sack.cumulative_tsn, self._acked)
        if cumulative < self._acked:
            self._drops["sack_old"] += 1
            return False
        if cumulative >= self._next_tsn:
            raise DecodeError("sack_ahead")
        gaps = self._gap_set(cumulative, sack.gaps)
        newly = gaps - self._gap_acked
        flight_before = self._flight
        octets = self._advance(cumulative, now)
        advanced = cumulative > self._acked
        self._acked = cumulative
        # §6.2.1: what an earlier SACK acknowledged and this one does not is missing again.
        for tsn in self._gap_acked - gaps:
            if tsn > cumulative:
                self._mark(self._outstanding[tsn])
        self._gap_acked = gaps
        for tsn in newly:
            sent = self._outstanding[tsn]
            if sent.in_flight:
                sent.in_flight = False
                self._flight -= sent.size
            octets += sent.size
            self._measure(tsn, now)
        self._peer_window = sack.window
        self._probed = sack.window < self._fragment
        recovering = self._window.recovery_exit is not None
        if advanced:
            self._round_trip.progress()
        if self._timed_out and any(unwrap_tsn(tsn, cumulative) in self._timed_out for tsn in sack.duplicates):
            self._round_trip.spurious()
        if advanced:
            self._window.acknowledged(octets, cumulative, flight_before)
            self.deadline = now + self._round_trip.rto if self._outstanding else math.inf
        elif not self._outstanding:
            self.deadline = math.inf
        if gaps and (newly or (recovering and advanced)):
            self._report_missing(max(gaps) if recovering and advanced else max(newly), now)
        return advanced or bool(newly)

    def acknowledge_cumulative(self, tsn: int, now: float) -> bool:
        """The acknowledgement inside SHUTDOWN; it says nothing of gaps or window."""
        cumulative = unwrap_tsn(tsn, self._acked)
        if cumulative >= self._next_tsn:
            raise DecodeError("sack_ahead")
        if cumulative <= self._acked:
            return False
        self._advance(cumulative, now)
        self._acked = cumulative
        self._gap_acked = {gap for gap in self._gap_acked if gap > cumulative}
        self.deadline = now + self._round_trip.rto if self._outstanding else math.inf
        return True

    def _gap_set(self, cumulative: int, blocks: tuple[tuple[int, int], ...]) -> set[int]:
        # Ascending, disjoint blocks are the only ones any receiver sends; holding to that bounds the work by what is
        # outstanding, whatever the peer writes.
        gaps: set[int] = set()
        last = 1  # offset 1 is the missing one that makes it a gap
        for start, end in blocks:
            if start <= last or end < start or cumulative + end >= self._next_tsn:
                self._drops["sack_gap"] += 1
                break
            gaps.update(range(cumulative + start, cumulative + end + 1))
            last = end
        return gaps

    def _advance(self, cumulative: int, now: float) -> int:
        octets = 0
        for tsn in range(self._acked + 1, cumulative + 1):
            sent = self._outstanding.pop(tsn)
            if sent.in_flight:
                self._flight -= sent.size
            if tsn not in self._gap_acked:
                octets += sent.size
                self._measure(tsn, now)
        return octets

    def _measure(self, tsn: int, now: float) -> None:
        if self._timed is not None and self._timed[0] == tsn:
            self._round_trip.sample(now - self._timed[1])
            self._timed = None
            # T3 may have been set with a backed-off timeout; what was just measured is better.
            self.deadline = min(self.deadline, now + self._round_trip.rto)

    def _mark(self, sent: _Sent) -> None:
        if sent.in_flight:
            sent.in_flight = False
            self._flight -= sent.size
        if self._timed is not None and self._timed[0] == sent.tsn:
            self._timed = None  # Karn: no measurement over a retransmission
        heapq.heappush(self._again, sent.tsn)

    def _report_missing(self, below: int, now: float) -> None:
        lost = False
        for tsn, sent in self._outstanding.items():
            if tsn >= below:
                break
            if not sent.in_flight or tsn in self._gap_acked or sent.fast:
                continue
            sent.misses += 1
            if sent.misses >= MISSING_REPORTS:
                sent.fast = True
                self._mark(sent)
                lost = True
        if lost and self._window.lost_some(self._next_tsn - 1):
            self._rush = True

    def repeat_all(self) -> None:
        """Mark everything not acknowledged; also for what rode along with a COOKIE ECHO that is repeated."""
        for tsn, sent in self._outstanding.items():
            if tsn not in self._gap_acked:
                sent.fast = False
                sent.misses = 0
                if sent.in_flight:
                    self._mark(sent)

    def handle_timeout(self, now: float) -> bool:
        """T3 (§6.3.3). True if that counts as an error of the peer: not while it answers with a closed window."""
        counts = not self._probed
        self._probed = False
        self._window.lost_all()
        self._round_trip.back_off()
        self._timed_out = self._outstanding.keys() - self._gap_acked
        self.repeat_all()
        self._rush = True
        self.deadline = now + self._round_trip.rto if self._outstanding else math.inf
        return counts

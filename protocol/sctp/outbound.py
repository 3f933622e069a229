"""The sending half of data transfer (RFC 9260 §6.1, §6.3, §7; RFC 3758 §3.5).

1. `queue` holds what waits (`outqueue`).
2. `next_chunk` gives one DATA chunk that fits the room left in a packet: retransmissions first, then new fragments,
   as long as congestion window and the peer's window allow. A fragment gets its TSN here, not earlier.
3. `acknowledge` takes a SACK: drops what is acknowledged, counts missing reports, marks for fast retransmission.
4. `handle_timeout` is T3.
5. A message that was lost too often or is too old is abandoned whole, and `forward_tsn` tells the peer to skip it.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Set

from protocol.errors import DecodeError
from protocol.sctp.chunks import DATA_HEADER_LENGTH, DataFlags, ForwardTsn, Sack, build_data, build_forward_tsn
from protocol.sctp.config import SctpConfig
from protocol.sctp.congestion import CongestionWindow, RoundTrip
from protocol.sctp.outqueue import Message, OutQueue
from protocol.sctp.packet import COMMON_HEADER_LENGTH
from protocol.sctp.serial import SSN_MASK, TSN_MASK, unwrap_tsn

__all__ = ["Sender"]

# Specification constants
MISSING_REPORTS = 3  # §7.2.4

# Implementation constants
MAX_STREAMS_TOLD = 64  # in one FORWARD TSN: it must fit a packet
MAX_OUTSTANDING = 4096  # chunks; what gap blocks acknowledge is no longer in flight, but kept until the gap is filled

_NO_GAPS: frozenset[int] = frozenset()
_BEGIN, _END, _UNORDERED = DataFlags.BEGIN.value, DataFlags.END.value, DataFlags.UNORDERED.value


class _Sent:
    """A DATA chunk on its way."""

    __slots__ = ("chunk", "fast", "in_flight", "message", "misses", "size", "times", "tsn")

    def __init__(self, tsn: int, chunk: bytes, size: int, message: Message) -> None:
        self.tsn = tsn
        self.chunk = chunk
        self.size = size
        self.message = message
        self.times = 1  # it was sent
        self.misses = 0
        self.in_flight = True  # False: marked for retransmission, acknowledged in a gap block, or abandoned
        self.fast = False  # was fast-retransmitted once; the next time is T3's


class Sender:
    """Bounds: what is queued is bounded by the channels (send_buffer, send_buffer_total), what is in flight by
    min(congestion window, peer's window, max_flight), what is kept by MAX_OUTSTANDING."""

    def __init__(self, config: SctpConfig, initial_tsn: int, round_trip: RoundTrip, drops: Counter[str]) -> None:
        self._round_trip = round_trip
        self._drops = drops
        # What windows are counted in, and the length of a fragment, which `fit` may make smaller.
        self._unit = self._fragment = (config.max_packet_size - COMMON_HEADER_LENGTH - DATA_HEADER_LENGTH) & ~3
        self._max_flight = config.max_flight
        self._window = CongestionWindow(self._unit)
        self.queue = OutQueue()
        self._outstanding: dict[int, _Sent] = {}  # by TSN, in order, without holes
        self._gap_acked: Set[int] = _NO_GAPS
        self._again: list[int] = []  # heap of TSNs marked for retransmission; may hold stale ones
        self._timed_out: set[int] = set()  # what the last T3 marked; a duplicate among them was repeated too early
        self._rush = False  # the next packet goes out whatever the windows say (§7.2.4)
        self._next_tsn = initial_tsn
        self._acked = initial_tsn - 1
        self._flight = 0
        self._peer_window = 0
        self._can_forward = False  # the peer knows FORWARD TSN; else nothing is ever abandoned
        self._forwarded = self._acked  # RFC 3758 §3.5: "Advanced.Peer.Ack.Point"
        self._forward_due = False
        self._forward_repeat = math.inf  # when the peer had time to say that it skipped
        self._burst_limit = 0
        self._timed: tuple[int, float] | None = None  # the TSN whose round trip is measured, and its start
        self._last_sent = -math.inf
        self._probed = False  # the peer answered, with a closed window, since T3 was set
        self.deadline = math.inf  # T3

    # What the association asks

    @property
    def last_tsn(self) -> int:
        """The last TSN given out."""
        return self._next_tsn - 1

    @property
    def drained(self) -> bool:
        return not self.queue and not self._outstanding

    @property
    def has_something(self) -> bool:
        """To send, if windows allow it."""
        return bool(self._again or self.queue.turns or self._forward_due)

    def wants_to_send(self) -> bool:
        return bool(self._again) or (bool(self.queue) and self._flight < self._window.size)

    # Commands

    def meet_peer(self, window: int, can_forward: bool) -> None:
        """What the peer's INIT or INIT ACK says."""
        self._peer_window = window
        self._can_forward = can_forward
        self._window.threshold = max(window, 4 * self._unit)

    def fit(self, capacity: int) -> None:
        """From now on fragments are such that packets hold at most so many bytes of chunks."""
        self._fragment = capacity - DATA_HEADER_LENGTH

    def establish(self, now: float) -> None:
        """Chunks that rode along with COOKIE ECHO get their T3 only now: until then T1 repeats it alone (§5.1 C)."""
        self.deadline = now + self._round_trip.rto if self._outstanding else math.inf

    def clear(self) -> None:
        self.queue.clear()
        self._outstanding.clear()
        self._again.clear()
        self._gap_acked = _NO_GAPS
        self._flight = 0
        self._acked = self._next_tsn - 1
        self._forward_due = False
        self.deadline = math.inf

    # Sending

    def begin_burst(self, now: float) -> None:
        if not self._outstanding and self.queue.turns:
            idle = now - self._last_sent
            if idle > self._round_trip.rto and self._last_sent >= 0:
                self._window.idle(int(idle / self._round_trip.rto))
        self._burst_limit = min(self._window.burst(self._flight), self._max_flight)

    def end_packet(self) -> None:
        self._rush = False

    def next_chunk(self, room: int, now: float, *, alone: bool = False) -> bytes | None:
        """A DATA chunk of at most `room` bytes, or None when none may go or none fits. One that was made for a larger
        packet goes again `alone`."""
        while self._again:
            sent = self._outstanding.get(self._again[0])
            if sent is None or sent.in_flight or sent.message.abandoned or sent.tsn in self._gap_acked:
                heapq.heappop(self._again)
                continue
            if sent.message.expires < now and self._can_forward:
                self._abandon(sent.message)
                continue
            if (len(sent.chunk) > room and not alone) or (self._flight >= self._burst_limit and not self._rush):
                return None
            heapq.heappop(self._again)
            sent.in_flight = True
            sent.misses = 0
            sent.times += 1
            self._flight += sent.size
            # §6.3.2 R1 starts T3; §7.2.4 (4) restarts it when the lowest outstanding TSN goes again.
            if sent.tsn == self._acked + 1 or self.deadline == math.inf:
                self.deadline = now + self._round_trip.rto
            self._last_sent = now
            return sent.chunk
        if self._flight >= self._burst_limit or len(self._outstanding) >= MAX_OUTSTANDING:
            return None
        while self.queue.turns:
            message = self.queue.head
            if message.expires >= now or not self._can_forward:
                return self._next_fragment(message, room, now)
            if message.offset:
                self._abandon(message)
            else:
                self._drops["message_expired"] += 1
                self.queue.drop_head()
        return None

    def _next_fragment(self, message: Message, room: int, now: float) -> bytes | None:
        offset = message.offset
        remaining = len(message.data) - offset
        size = min(remaining, self._fragment)
        if DATA_HEADER_LENGTH + size > room:
            return None
        # §6.1 A: beyond the peer's window only a single chunk, as a probe.
        if self._flight + size > self._peer_window and self._outstanding:
            return None
        tsn = self._next_tsn
        self._next_tsn = tsn + 1
        flags = 0 if message.ordered else _UNORDERED
        if not offset:
            flags |= _BEGIN
            message.first_tsn = tsn
        payload = message.data[offset : offset + size]
        if size == remaining:
            flags |= _END
        message.last_tsn = tsn
        self.queue.took(size)
        chunk = build_data(flags, tsn & TSN_MASK, message.stream, message.ssn & SSN_MASK, message.ppid, payload)
        self._outstanding[tsn] = _Sent(tsn, chunk, size, message)
        self._flight += size
        if self._timed is None:
            self._timed = (tsn, now)
        if self.deadline == math.inf:
            self.deadline = now + self._round_trip.rto
        self._last_sent = now
        return chunk

    # Giving up (RFC 3758 §3.5)

    def _abandon(self, message: Message) -> None:
        """All fragments or none. The rest of a message half sent gets one TSN that nobody will ever see: without it
        the next message would seem to follow the peer's last fragment."""
        self._drops["message_abandoned"] += 1
        message.abandoned = True
        if message.offset < len(message.data):
            self.queue.drop_head()
            message.last_tsn = tsn = self._next_tsn
            self._next_tsn = tsn + 1
            self._outstanding[tsn] = _Sent(tsn, b"", 0, message)
        for tsn in range(max(message.first_tsn, self._acked + 1), message.last_tsn + 1):
            self._lose(self._outstanding[tsn])
        self._advance_forwarded()

    def _advance_forwarded(self) -> None:
        """C2: over everything abandoned that no gap of ours separates from what the peer has."""
        before = self._forwarded = max(self._forwarded, self._acked)
        while (sent := self._outstanding.get(self._forwarded + 1)) is not None and sent.message.abandoned:
            self._forwarded += 1
        if self._forwarded > before:
            self._forward_due = True

    def forward_tsn(self, now: float) -> bytes | None:
        """A FORWARD TSN chunk when there is something new to skip, or T3 found the last one lost."""
        if not self._forward_due:
            return None
        self._forward_due = False
        streams: dict[int, int] = {}
        cumulative = self._acked
        for tsn in range(self._acked + 1, self._forwarded + 1):
            message = self._outstanding[tsn].message
            if message.ordered:
                if message.stream not in streams and len(streams) == MAX_STREAMS_TOLD:
                    break  # the rest follows a round trip later
                streams[message.stream] = message.ssn & SSN_MASK
            cumulative = tsn
        if cumulative == self._acked:
            return None
        if self.deadline == math.inf:
            self.deadline = now + self._round_trip.rto
        self._forward_repeat = now + (self._round_trip.smoothed or self._round_trip.rto)
        return build_forward_tsn(ForwardTsn(cumulative & TSN_MASK, tuple(streams.items())))

    # Acknowledgement

    def acknowledge(self, sack: Sack, now: float) -> bool:
        """Take a SACK; True if it acknowledged something new."""
        cumulative = unwrap_tsn(sack.cumulative_tsn, self._acked)
        if cumulative < self._acked:
            self._drops["sack_old"] += 1
            return False
        if cumulative >= self._next_tsn:
            raise DecodeError("sack_ahead")
        gaps = self._gap_set(cumulative, sack.gaps) if sack.gaps else _NO_GAPS
        newly = gaps - self._gap_acked
        flight_before = self._flight
        octets = self._advance(cumulative, now)
        advanced = cumulative > self._acked
        self._acked = cumulative
        # §6.2.1: what an earlier SACK acknowledged and this one does not is missing again.
        for tsn in self._gap_acked - gaps:
            if tsn > cumulative and not self._outstanding[tsn].message.abandoned:
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
        self._probed = sack.window < self._unit
        recovering = self._window.recovery_exit is not None
        if advanced:
            self._round_trip.progress()
        if self._timed_out and any(unwrap_tsn(tsn, cumulative) in self._timed_out for tsn in sack.duplicates):
            self._round_trip.spurious()
        if advanced:
            self._window.acknowledged(octets, cumulative, flight_before)
            self.deadline = now + self._round_trip.rto if self._outstanding else math.inf
        if not self._outstanding:
            self._window.all_acknowledged()
            self.deadline = math.inf
        if gaps and (newly or (recovering and advanced)):
            self._report_missing(max(gaps) if recovering and advanced else max(newly))
        if advanced:
            self._advance_forwarded()
        # RFC 3758 §3.5 C3 asks for a FORWARD TSN with each SACK that does not know of it; one a round trip is enough.
        if self._forwarded > cumulative and now >= self._forward_repeat:
            self._forward_due = True
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
            if tsn not in self._gap_acked and not sent.message.abandoned:
                octets += sent.size
                if self._timed is not None:
                    self._measure(tsn, now)
        return octets

    def _measure(self, tsn: int, now: float) -> None:
        if self._timed is not None and self._timed[0] == tsn:
            self._round_trip.sample(now - self._timed[1])
            self._timed = None
            # T3 may have been set with a backed-off timeout; what was just measured is better.
            self.deadline = min(self.deadline, now + self._round_trip.rto)

    def _lose(self, sent: _Sent) -> None:
        if sent.in_flight:
            sent.in_flight = False
            self._flight -= sent.size
        if self._timed is not None and self._timed[0] == sent.tsn:
            self._timed = None  # Karn: no measurement over a retransmission

    def _mark(self, sent: _Sent) -> None:
        self._lose(sent)
        if sent.times > sent.message.max_retransmits and self._can_forward:
            self._abandon(sent.message)
        else:
            heapq.heappush(self._again, sent.tsn)

    def _report_missing(self, below: int) -> None:
        lost: list[_Sent] = []
        for tsn, sent in self._outstanding.items():
            if tsn >= below:
                break
            if not sent.in_flight or tsn in self._gap_acked or sent.fast:
                continue
            sent.misses += 1
            if sent.misses >= MISSING_REPORTS:
                sent.fast = True
                lost.append(sent)
        for sent in lost:
            if not sent.message.abandoned:  # with one before it
                self._mark(sent)
        if lost and self._window.lost_some(self._next_tsn - 1):
            self._rush = True

    def repeat_all(self) -> None:
        """Mark everything not acknowledged; also for what rode along with a COOKIE ECHO that is repeated."""
        for tsn, sent in list(self._outstanding.items()):
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
        self._forward_due = self._forwarded > self._acked
        self._rush = True
        self.deadline = now + self._round_trip.rto if self._outstanding else math.inf
        return counts

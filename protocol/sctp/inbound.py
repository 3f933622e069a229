"""The receiving half of data transfer: which TSNs came, what to acknowledge and when (RFC 9260 §6.2).

1. `receive` takes a DATA chunk: duplicates are noted, what exceeds window or bounds is dropped as if lost.
2. `end_packet` decides about the acknowledgement: at once for the first packet, each second packet, on gaps and
   duplicates; otherwise after `sack_delay`.
3. What was given out and nobody has read yet (`keep_unread`) counts too: a full window takes nothing more of anybody.
4. `sack` builds it. What was acknowledged, in a gap block too, is never dropped later.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter

from protocol.errors import RemoteError
from protocol.sctp.chunks import CauseCode, Data, DataFlags, ForwardTsn, Sack, build_sack
from protocol.sctp.config import SctpConfig
from protocol.sctp.reassembly import Message, Reassembly
from protocol.sctp.serial import TSN_MASK, unwrap_tsn

__all__ = ["Receiver"]

# Implementation constants
MAX_AHEAD = 0xFFFF  # what a gap block's 16-bit offset can say
MAX_INTERVALS = 1024  # separate stretches beyond the cumulative TSN; more is dropped
MAX_DUPLICATES_TOLD = 20

_IMMEDIATE = DataFlags.IMMEDIATE.value


class Receiver:
    def __init__(self, config: SctpConfig, drops: Counter[str]) -> None:
        self._config = config
        self._drops = drops
        self._reassembly = Reassembly(config.max_message_size, config.max_dropped_size, drops)
        self._intervals: list[tuple[int, int]] = []  # (first, last) received beyond the cumulative TSN, ascending
        self._duplicates: list[int] = []
        self._unacknowledged_packets = 0
        self._immediately = True  # the very first packet is acknowledged at once: it gives the peer its round trip
        self._data_in_packet = False
        self._forwarded_in_packet = False
        self._unread_octets = 0
        self._unread_room = 0
        self.cumulative = 0
        self.deadline = math.inf  # of the delayed acknowledgement
        self.due = False

    def start(self, initial_tsn: int) -> None:
        """At INIT ACK, or at the cookie, which may bring another initial TSN (§5.2.4 B)."""
        self.cumulative = initial_tsn - 1

    @property
    def pending(self) -> bool:
        """An acknowledgement is owed, now or later."""
        return self.due or self.deadline != math.inf

    @property
    def window(self) -> int:
        room = max(self._config.receive_window - self._reassembly.bytes_held - self._unread_room, 0)
        if self._unread_room:  # the peer counts bytes: as many as fit, if what follows is like what waits
            room = room * self._unread_octets // self._unread_room
        return room

    def keep_unread(self, octets: int, room: int) -> bool:
        """True: an acknowledgement is due, for half of the window is free again."""
        half = self._config.receive_window // 2
        opened = self._unread_room > half >= room
        self._unread_octets, self._unread_room = octets, room
        self.due = self.due or opened
        return opened

    def receive(self, chunk: Data) -> list[Message]:
        """Returns the messages this chunk completes. Raises RemoteError for what RFC 9260 makes fatal."""
        self._data_in_packet = True
        cumulative = self.cumulative
        tsn = unwrap_tsn(chunk.tsn, cumulative)
        if not chunk.payload:
            raise RemoteError(CauseCode.NO_USER_DATA, "no_user_data")
        if tsn <= cumulative or (self._intervals and self._seen(tsn)):
            self._immediately = True
            self._drops["tsn_duplicate"] += 1
            if len(self._duplicates) < MAX_DUPLICATES_TOLD:
                self._duplicates.append(chunk.tsn)
            return []
        if not self._fits(tsn, len(chunk.payload)):
            self._immediately = True
            self._drops["receive_buffer"] += 1
            return []
        self._record(tsn)
        if self._intervals or chunk.flags & _IMMEDIATE:
            self._immediately = True
        if chunk.stream >= self._config.streams:
            self._drops["invalid_stream"] += 1  # §6.5: acknowledged, told in an ERROR, dropped
            return []
        return self._reassembly.add(tsn, chunk)

    def _fits(self, tsn: int, size: int) -> bool:
        if tsn > self.cumulative + MAX_AHEAD or self._unread_room >= self._config.receive_window:
            return False
        if len(self._intervals) >= MAX_INTERVALS and tsn != self.cumulative + 1:
            return False
        # The next expected TSN may use a reserve, because it is what frees the rest.
        reserve = 2 if tsn == self.cumulative + 1 else 1
        held, pieces = self._reassembly.bytes_held, self._reassembly.pieces
        return held + size <= self._config.receive_window * reserve and pieces < self._config.max_pieces * reserve

    def _seen(self, tsn: int) -> bool:
        intervals = self._intervals
        if not intervals or tsn > intervals[-1][1]:
            return False
        position = bisect_right(intervals, (tsn, math.inf)) - 1
        return position >= 0 and tsn <= intervals[position][1]

    def _record(self, tsn: int) -> None:
        intervals = self._intervals
        if tsn == self.cumulative + 1:
            self.cumulative = tsn
            if intervals and intervals[0][0] == tsn + 1:
                self.cumulative = intervals.pop(0)[1]
            return
        if intervals and intervals[-1][1] + 1 == tsn:
            intervals[-1] = (intervals[-1][0], tsn)
            return
        position = bisect_right(intervals, (tsn, math.inf))
        first = last = tsn
        if position < len(intervals) and intervals[position][0] == tsn + 1:
            last = intervals.pop(position)[1]
        if position and intervals[position - 1][1] == tsn - 1:
            position -= 1
            first = intervals.pop(position)[0]
        intervals.insert(position, (first, last))

    def forward(self, forward: ForwardTsn) -> list[Message]:
        """FORWARD TSN: the peer gave up what lies below (RFC 3758 §3.6)."""
        self._data_in_packet = True
        self._immediately = True
        if self._forwarded_in_packet:  # each costs a look at all that waits; nobody has reason to bundle two
            self._drops["forward_tsn_repeated"] += 1
            return []
        self._forwarded_in_packet = True
        cumulative = unwrap_tsn(forward.cumulative_tsn, self.cumulative)
        if cumulative <= self.cumulative or cumulative > self.cumulative + MAX_AHEAD:
            self._drops["forward_tsn_old"] += 1
            return []
        self.cumulative = cumulative
        while self._intervals and self._intervals[0][0] <= self.cumulative + 1:
            self.cumulative = max(self.cumulative, self._intervals.pop(0)[1])
        streams = tuple(pair for pair in forward.streams if pair[0] < self._config.streams)
        return self._reassembly.skip(cumulative, streams)

    def restart_streams(self, streams: tuple[int, ...]) -> None:
        self._reassembly.restart_streams(streams)

    def end_packet(self, now: float) -> None:
        """The whole packet was taken; decide about its acknowledgement."""
        if not self._data_in_packet:
            return
        self._data_in_packet = False
        self._forwarded_in_packet = False
        self._unacknowledged_packets += 1
        if self._immediately or self._unacknowledged_packets >= 2:
            self.due = True
        elif self.deadline == math.inf:
            self.deadline = now + self._config.sack_delay

    def handle_timeout(self) -> None:
        self.due = True

    def sack(self, room: int) -> bytes:
        """In at most `room` bytes: what does not fit is told when the first gaps are filled."""
        base = self.cumulative
        most = room // 4 - 4 - len(self._duplicates)
        intervals = self._intervals
        gaps = tuple((first - base, last - base) for first, last in intervals[:most]) if intervals else ()
        chunk = build_sack(Sack(base & TSN_MASK, self.window, gaps, tuple(self._duplicates)))
        self._duplicates.clear()
        self._unacknowledged_packets = 0
        self._immediately = False
        self.deadline = math.inf
        self.due = False
        return chunk

    def clear(self) -> None:
        config = self._config
        self._reassembly = Reassembly(config.max_message_size, config.max_dropped_size, self._drops)
        self._intervals.clear()
        self.deadline = math.inf
        self.due = False

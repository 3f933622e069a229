"""From fragments to messages, and messages of a stream into their order (RFC 9260 §6.5, §6.6, §6.9).

1. Fragments of one message have consecutive TSNs; those that touch are joined into runs, found by their first and
   last TSN, so that each fragment costs the same however long the message is.
2. A run with both ends is a message. Unordered: delivered at once. Ordered: delivered when its stream sequence number
   is the next, else it waits.
3. A message larger than we take is dropped: of its run only the length is kept from then on. What is delivered in its place
   has no data and says so.

Bounds: the receiver asks `bytes_held` and `pieces` before it gives a fragment; a run never holds more than the largest
message; a message beyond what is dropped in peace, or a violation of these rules, is fatal (RemoteError).
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from protocol.errors import RemoteError
from protocol.sctp.chunks import CauseCode, Data, DataFlags
from protocol.sctp.serial import unwrap_ssn

__all__ = ["Message", "Reassembly"]

_BEGIN, _END, _UNORDERED = DataFlags.BEGIN.value, DataFlags.END.value, DataFlags.UNORDERED.value
_WHOLE = _BEGIN | _END


class Message(NamedTuple):
    stream: int
    ppid: int
    data: bytes
    is_too_large: bool = False
    """What it said was dropped."""


class _Run:
    __slots__ = ("begins", "data", "ends", "first", "is_too_large", "key", "last", "ppid", "size")

    def __init__(self, tsn: int, chunk: Data) -> None:
        self.first = self.last = tsn
        self.begins = bool(chunk.flags & _BEGIN)
        self.ends = bool(chunk.flags & _END)
        unordered = chunk.flags & _UNORDERED
        self.key = (chunk.stream, unordered, 0 if unordered else chunk.ssn)
        self.ppid = chunk.ppid
        self.data = bytearray(chunk.payload)
        self.size = len(chunk.payload)
        self.is_too_large = False  # then `data` is empty

    def message(self) -> Message:
        return Message(self.key[0], self.ppid, bytes(self.data), self.is_too_large)


class _Stream:
    __slots__ = ("next_ssn", "waiting")

    def __init__(self) -> None:
        self.next_ssn = 0
        self.waiting: dict[int, Message] = {}


class Reassembly:
    def __init__(self, max_message_size: int, max_dropped_size: int, drops: Counter[str]) -> None:
        """A message larger than the first is dropped, one larger than the second too is fatal."""
        self._max_message_size = max_message_size
        self._max_dropped_size = max_dropped_size
        self._drops = drops
        self._by_first: dict[int, _Run] = {}
        self._by_last: dict[int, _Run] = {}
        self._streams: dict[int, _Stream] = {}  # bounded by the number of streams
        self._waiting = 0
        self.bytes_held = 0

    @property
    def pieces(self) -> int:
        return len(self._by_first) + self._waiting

    def add(self, tsn: int, chunk: Data) -> list[Message]:
        """Take a DATA chunk not seen before; returns the messages that it completes, in order of delivery."""
        if chunk.flags & _WHOLE == _WHOLE and len(chunk.payload) <= self._max_message_size:
            message = Message(chunk.stream, chunk.ppid, chunk.payload)
            if chunk.flags & _UNORDERED:
                return [message]
            return self._in_order(chunk.ssn, message)
        run = self._append(tsn, chunk) or self._join(_Run(tsn, chunk))
        if not (run.begins and run.ends):
            return []
        del self._by_first[run.first], self._by_last[run.last]
        self.bytes_held -= len(run.data)
        _, unordered, ssn = run.key
        message = run.message()
        return [message] if unordered else self._in_order(ssn, message)

    def _append(self, tsn: int, chunk: Data) -> _Run | None:
        """The usual case of `_join`, for a fragment that only follows the one before it."""
        flags, payload = chunk.flags, chunk.payload
        run = self._by_last.get(tsn - 1)
        if run is None or run.ends or flags & _BEGIN or tsn + 1 in self._by_first:
            return None
        unordered = flags & _UNORDERED
        if run.key != (chunk.stream, unordered, 0 if unordered else chunk.ssn):
            return None
        if run.size + len(payload) > self._max_message_size:
            return None
        del self._by_last[tsn - 1]
        run.data += payload
        run.size += len(payload)
        run.last = tsn
        run.ends = bool(flags & _END)
        self._by_last[tsn] = run
        self.bytes_held += len(payload)
        return run

    def _join(self, run: _Run) -> _Run:
        self.bytes_held += len(run.data)
        left = self._by_last.get(run.first - 1)
        if left is not None and left.ends == run.begins:
            # A run that ends must be followed by one that begins, and no other.
            if not left.ends:
                self._check(left, run)
                del self._by_last[left.last]
                left.data += run.data
                left.size += run.size
                left.is_too_large |= run.is_too_large
                left.last, left.ends = run.last, run.ends
                run = left
        elif left is not None:
            raise RemoteError(CauseCode.PROTOCOL_VIOLATION, "fragment_order")
        right = self._by_first.get(run.last + 1)
        if right is not None and right.begins == run.ends:
            if not run.ends:
                self._check(run, right)
                del self._by_first[right.first], self._by_last[right.last]
                right.data[:0] = run.data  # in place: fragments may come last first
                run.data = right.data
                run.size += right.size
                run.is_too_large |= right.is_too_large
                run.last, run.ends = right.last, right.ends
        elif right is not None:
            raise RemoteError(CauseCode.PROTOCOL_VIOLATION, "fragment_order")
        if run.size > self._max_message_size:
            self._drop_data(run)
        self._by_first[run.first] = run
        self._by_last[run.last] = run
        return run

    def _drop_data(self, run: _Run) -> None:
        if run.size > self._max_dropped_size:
            raise RemoteError(CauseCode.PROTOCOL_VIOLATION, "message_too_large")
        if not run.is_too_large:
            run.is_too_large = True
            self._drops["message_too_large"] += 1
        self.bytes_held -= len(run.data)
        run.data = bytearray()

    def _check(self, left: _Run, right: _Run) -> None:
        if left.key != right.key:
            raise RemoteError(CauseCode.PROTOCOL_VIOLATION, "fragment_mismatch")

    def _in_order(self, ssn16: int, message: Message) -> list[Message]:
        stream = self._streams.get(message.stream)
        if stream is None:
            stream = self._streams[message.stream] = _Stream()
        ssn = unwrap_ssn(ssn16, stream.next_ssn)
        if ssn == stream.next_ssn:
            stream.next_ssn += 1
            if not stream.waiting:
                return [message]
            return [message, *self._release(stream)]
        if ssn < stream.next_ssn or ssn in stream.waiting:
            self._drops["ssn_repeated"] += 1
            return []
        stream.waiting[ssn] = message
        self._waiting += 1
        self.bytes_held += len(message.data)
        return []

    def _release(self, stream: _Stream) -> list[Message]:
        released: list[Message] = []
        while (message := stream.waiting.pop(stream.next_ssn, None)) is not None:
            released.append(message)
            stream.next_ssn += 1
            self._waiting -= 1
            self.bytes_held -= len(message.data)
        return released

    def skip(self, cumulative: int, streams: tuple[tuple[int, int], ...]) -> list[Message]:
        """FORWARD TSN (RFC 3758 §3.6): nothing up to this TSN comes any more."""
        for run in [run for run in self._by_first.values() if run.first <= cumulative]:
            del self._by_first[run.first], self._by_last[run.last]
            self.bytes_held -= len(run.data)
        released: list[Message] = []
        for number, ssn16 in streams:
            stream = self._streams.get(number)
            if stream is None:
                stream = self._streams[number] = _Stream()
            ssn = unwrap_ssn(ssn16, stream.next_ssn)
            if ssn < stream.next_ssn:
                continue
            # What waits below the new number was complete: it is delivered, only the holes are skipped.
            for waiting in sorted(key for key in stream.waiting if key <= ssn):
                message = stream.waiting.pop(waiting)
                released.append(message)
                self._waiting -= 1
                self.bytes_held -= len(message.data)
            stream.next_ssn = ssn + 1
            released += self._release(stream)
        return released

    def restart_streams(self, streams: tuple[int, ...]) -> None:
        """The peer reset these streams (all, if none is named): their sequence numbers begin at zero."""
        for number in streams or tuple(self._streams):
            stream = self._streams.pop(number, None)
            if stream is not None:
                self._waiting -= len(stream.waiting)
                self.bytes_held -= sum(len(message.data) for message in stream.waiting.values())

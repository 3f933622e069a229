"""What waits to be sent: messages in the queues of their streams (RFC 9260 §6.1, §6.9).

Streams take turns, message by message, because without I-DATA the fragments of a message have consecutive TSNs. The
bounds are those of the channels (send_buffer, send_buffer_total), which ask before they put something in.
"""

from __future__ import annotations

import math
from collections import deque

__all__ = ["Message", "OutQueue"]


class Message:
    """One message on one stream. `max_retransmits` and `expires` are when to give it up (RFC 3758, RFC 7496)."""

    __slots__ = (
        "abandoned",
        "data",
        "expires",
        "first_tsn",
        "last_tsn",
        "max_retransmits",
        "offset",
        "ordered",
        "ppid",
        "ssn",
        "stream",
    )

    def __init__(
        self,
        stream: int,
        ppid: int,
        data: bytes,
        ordered: bool,
        max_retransmits: float = math.inf,
        expires: float = math.inf,
    ) -> None:
        self.stream = stream
        self.ppid = ppid
        self.data = data
        self.ordered = ordered
        self.max_retransmits = max_retransmits
        self.expires = expires
        self.abandoned = False
        self.offset = 0  # what lies before it has its TSNs: first to last
        self.first_tsn = self.last_tsn = 0
        self.ssn = 0


class _Stream:
    __slots__ = ("buffered", "queue", "ssn")

    def __init__(self) -> None:
        self.queue: deque[Message] = deque()
        self.buffered = 0
        self.ssn = 0


class OutQueue:
    def __init__(self) -> None:
        self._streams: dict[int, _Stream] = {}
        self.turns: deque[int] = deque()  # streams with something queued; the first is being sent
        self.buffered_total = 0

    def __bool__(self) -> bool:
        return bool(self.turns)

    def buffered(self, stream: int) -> int:
        entry = self._streams.get(stream)
        return entry.buffered if entry else 0

    def put(self, message: Message) -> None:
        entry = self._streams.get(message.stream)
        if entry is None:
            entry = self._streams[message.stream] = _Stream()
        if not entry.queue:
            self.turns.append(message.stream)
        entry.queue.append(message)
        entry.buffered += len(message.data)
        self.buffered_total += len(message.data)

    @property
    def head(self) -> Message:
        """The message whose turn it is; there must be one."""
        return self._streams[self.turns[0]].queue[0]

    def took(self, size: int) -> None:
        """The next `size` bytes of the head got a TSN."""
        stream = self.turns[0]
        entry = self._streams[stream]
        message = entry.queue[0]
        if not message.offset and message.ordered:
            message.ssn = entry.ssn
            entry.ssn += 1
        message.offset += size
        entry.buffered -= size
        self.buffered_total -= size
        if message.offset == len(message.data):
            message.data = b""  # its chunks hold it now, and they keep the message
            self._next_turn(entry)

    def drop_head(self) -> None:
        """What of the head has no TSN yet is not sent. A sequence number that was not used stays free."""
        entry = self._streams[self.turns[0]]
        message = entry.queue[0]
        rest = len(message.data) - message.offset
        entry.buffered -= rest
        self.buffered_total -= rest
        self._next_turn(entry)

    def _next_turn(self, entry: _Stream) -> None:
        entry.queue.popleft()
        stream = self.turns.popleft()
        if entry.queue:
            self.turns.append(stream)

    def restart(self, stream: int) -> None:
        """The peer knows that the stream was reset: its sequence numbers begin anew (RFC 6525 §5.2.7)."""
        entry = self._streams.get(stream)
        if entry is not None and not entry.queue:
            del self._streams[stream]

    def clear(self) -> None:
        self._streams.clear()
        self.turns.clear()
        self.buffered_total = 0

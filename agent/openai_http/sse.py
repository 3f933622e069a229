"""Server-sent events out of bytes, without I/O (WHATWG HTML, §9.2.6 "Interpreting an event stream").

Lines end with CR, LF or both; an empty line ends an event; what begins with a colon is a comment. Of an event only its name
and its data matter here: nobody reconnects, so `id` and `retry` are passed over. What the stream breaks off in the middle of
was no event.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from protocol.errors import DecodeError

__all__ = ["MAX_EVENT_BYTES", "MAX_LINE_BYTES", "ServerSentEvent", "SseParser"]

# Specification constants
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# Implementation constants
MAX_LINE_BYTES = 256 * 1024
MAX_EVENT_BYTES = 1024 * 1024  # of its data; more raises

_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """`name` is "" when the server gave none."""

    name: str
    data: str


class SseParser:
    """One stream. After a DecodeError it is of no further use."""

    def __init__(self) -> None:
        self._rest = bytearray()  # a line that has not ended: at most MAX_LINE_BYTES
        self._after_cr = False  # an LF now belongs to the CR before it
        self._at_start = True
        self._name = ""
        self._data: list[str] = []
        self._size = 0

    def feed_untrusted(self, data: bytes) -> list[ServerSentEvent]:
        """The events that are whole now. Raises DecodeError for a line or an event that is too long."""
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        searched = len(self._rest)  # there is no end of a line in what is left
        self._rest += data
        events: list[ServerSentEvent] = []
        begun = 0
        for end in _LINE_END.finditer(self._rest, searched):
            self._take(bytes(self._rest[begun : end.start()]), events)
            begun = end.end()
        if begun:
            self._after_cr = begun == len(self._rest) and self._rest[-1] == 0x0D
            del self._rest[:begun]
        if len(self._rest) > MAX_LINE_BYTES:
            raise DecodeError("sse_line_too_long")
        return events

    def _take(self, line: bytes, events: list[ServerSentEvent]) -> None:
        if len(line) > MAX_LINE_BYTES:
            raise DecodeError("sse_line_too_long")
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(BYTE_ORDER_MARK)
        if not line:
            if self._data:
                events.append(ServerSentEvent(self._name, "\n".join(self._data)))
            self._name, self._data, self._size = "", [], 0
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._size += len(value) + 1
            if self._size > MAX_EVENT_BYTES:
                raise DecodeError("sse_event_too_long")
            self._data.append(value.decode("utf-8", "replace"))
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")

"""What waits to be written to one link, in three lanes, and the order in which one wake writes them.

    urgent    control messages: accept, refuse, flush (a barge-in overtakes audio)
    media     audio frames of all calls, gathered into as few messages as possible
    ordered   data messages and the ends of calls, a few in each write: urgent ones and audio pass between them, but do not
              keep them

Whatever of the first two waits leaves in one write.

Bounds are kept where things are put: 5 s of audio and 256 KiB of data a call (agent/downlink.py), one flush a call at a
time, one end a call.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

import trio

from protocol.agentlink import AgentMessage, DataMessage, MediaRecord, encode_data, encode_media, encode_message

__all__ = ["Outbox"]

# Implementation constants: of the ordered lane in one write; each message costs both ends some 0.1 ms
WRITE_MESSAGES = 16
WRITE_BYTES = 64 * 1024


class Outbox:
    """Putting never waits; one task, `write`, empties it."""

    def __init__(self) -> None:
        self._urgent: deque[AgentMessage] = deque()
        self._media: list[MediaRecord] = []
        self._ordered: deque[tuple[AgentMessage | DataMessage, Callable[[], None] | None]] = deque()
        self._wake = trio.Event()
        self._idle = trio.Event()

    def put_urgent(self, message: AgentMessage) -> None:
        self._urgent.append(message)
        self._rouse()

    def put_media(self, record: MediaRecord) -> None:
        if not self._media:  # else the writer is awake
            self._rouse()
        self._media.append(record)

    def put_ordered(self, message: AgentMessage | DataMessage, written: Callable[[], None] | None = None) -> None:
        """`written` is called when the message has been handed to the operating system."""
        self._ordered.append((message, written))
        self._rouse()

    def take_back_media(self, handle: int) -> list[MediaRecord]:
        """Remove, and return, the frames of one call that are still here."""
        taken = [record for record in self._media if record.handle == handle]
        if taken:
            self._media = [record for record in self._media if record.handle != handle]
        return taken

    async def wait_idle(self) -> None:
        """Until everything has been written."""
        await self._idle.wait()

    async def write(self, send: Callable[[list[str | bytes]], Awaitable[None]]) -> None:
        """Write until cancelled, or until `send` raises."""
        while True:
            messages: list[str | bytes] = [encode_message(message) for message in self._urgent]
            self._urgent.clear()
            if self._media:
                records, self._media = self._media, []
                messages += encode_media(records)
            written = self._take_ordered(messages)
            if messages:
                await send(messages)
            for tell in written:
                tell()
            if not (self._urgent or self._media or self._ordered):
                self._idle.set()
                self._wake = trio.Event()
                await self._wake.wait()

    def _take_ordered(self, messages: list[str | bytes]) -> list[Callable[[], None]]:
        """Add what of the lane goes into this write; whom to tell when it has been written."""
        written = []
        size, last = 0, len(messages) + WRITE_MESSAGES
        while self._ordered and size < WRITE_BYTES and len(messages) < last:
            ordered, tell = self._ordered.popleft()
            messages.append(encode_data(ordered) if isinstance(ordered, DataMessage) else encode_message(ordered))
            size += len(messages[-1])
            if tell is not None:
                written.append(tell)
        return written

    def _rouse(self) -> None:
        self._wake.set()
        if self._idle.is_set():
            self._idle = trio.Event()

"""What waits to go to the service: events, in order, and the caller's audio, gathered into pieces.

audio    the last 10 s, as the decoder gave it     drop oldest and count: while there is no service, or it reads slowly
events   256, 1 MiB                                refuse: the client is told

Audio is resampled and put into base64 when it leaves. A commit and a clear of the service's input buffer keep their place
among it.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections import deque
from collections.abc import Callable, Iterable

from agent.codecs.resampling import Resampler
from agent.upstream.events import append_event
from agent.upstream.sound import RATE
from agent.upstream.statistics import UpstreamStatistics

__all__ = ["Uplink"]

# Implementation constants
PIECE_MS = 60  # of audio that make an event: docs/agent.md has what each length costs
MAX_APPEND_MS = 500  # of audio in an event, when more of it waits
MAX_AUDIO_SECONDS = 10.0
MAX_EVENTS = 256
MAX_EVENT_BYTES = 1024 * 1024
WRITE_BYTES = 128 * 1024  # of events in one go


class Uplink:
    """Putting never waits. Nothing leaves before `open`, nor after `close`; what waits then waits on."""

    def __init__(
        self, rate: int, statistics: UpstreamStatistics, notify: Callable[[], None], piece_ms: int = PIECE_MS
    ) -> None:
        """`rate` of the caller's audio; `notify` is called when there is something to take."""
        self.is_open = False
        self._statistics = statistics
        self._notify = notify
        self._rate = rate
        self._resampler = Resampler(rate, RATE)
        self._audio = bytearray()
        self._piece = rate * piece_ms // 1000 * 2
        self._most = rate * MAX_APPEND_MS // 1000 * 2
        self._limit = int(rate * MAX_AUDIO_SECONDS) * 2
        self._events: deque[str] = deque()
        self._event_bytes = 0

    def hear(self, pcm: bytes) -> None:
        """The caller's audio."""
        self._audio += pcm
        surplus = len(self._audio) - self._limit
        if surplus > 0:
            del self._audio[:surplus]
            self._statistics.uplink_dropped_ms += surplus / 2 * 1000 / self._rate
        if len(self._audio) >= self._piece and self.is_open:
            self._notify()

    def tell(self, event: str) -> bool:
        """False: too many wait."""
        if len(self._events) >= MAX_EVENTS or self._event_bytes + len(event) > MAX_EVENT_BYTES:
            return False
        self._put(event)
        return True

    def commit(self, event: str) -> bool:
        """An event that speaks of the audio before it."""
        waiting = len(self._audio) * 4 * RATE // (3 * self._rate)
        if len(self._events) >= MAX_EVENTS or self._event_bytes + waiting + len(event) > MAX_EVENT_BYTES:
            return False
        while self._audio:
            self._put(self._next_append())
        if rest := self._resampler.finish():
            self._put(append_event(b2a_base64(rest, newline=False).decode()))
        self._resampler = Resampler(self._rate, RATE)
        self._put(event)
        return True

    def clear(self, event: str) -> bool:
        """An event that makes the audio before it worthless."""
        if not self.tell(event):
            return False
        self._audio.clear()
        return True

    def holds(self, event: str) -> bool:
        return event in self._events

    def open(self, first: Iterable[str]) -> None:
        """`first` leave before all that waits: a bounded number, for whoever calls."""
        for event in reversed(list(first)):
            self._events.appendleft(event)
            self._event_bytes += len(event)
        self.is_open = True
        self._notify()

    def close(self) -> None:
        self.is_open = False

    def take(self) -> list[str]:
        """What leaves next."""
        if not self.is_open:
            return []
        taken: list[str] = []
        size = 0
        while self._events and size < WRITE_BYTES:
            event = self._events.popleft()
            self._event_bytes -= len(event)
            size += len(event)
            taken.append(event)
        self._statistics.events_up += len(taken)
        if not self._events and len(self._audio) >= self._piece:
            taken.append(self._next_append())
        return taken

    def _put(self, event: str) -> None:
        self._events.append(event)
        self._event_bytes += len(event)
        if self.is_open:
            self._notify()

    def _next_append(self) -> str:
        pcm = bytes(self._audio[: self._most])
        del self._audio[: self._most]
        self._statistics.appends += 1
        return append_event(b2a_base64(self._resampler.feed(pcm), newline=False).decode())

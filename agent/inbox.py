"""What has arrived for one call and was not read yet: three lanes, each with a bound, so that a slow agent costs little.

frames    1 s of audio          drop oldest and count: stale speech is useless
notes     1024, 1 MiB of data   an agent that reads them, but too slowly, loses its call (a reliable channel must not
                                lose messages in silence); while an agent reads none at all, drop oldest and count
played    the newest 16         drop oldest: each report contains the ones before
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeAlias, TypeVar

import trio

from agent.events import ChannelClosed, ChannelOpened, Digit, Draining, Event, Frame, Message, Played
from agent.statistics import Statistics

__all__ = ["Inbox", "Note", "Stream"]

# Implementation constants
AUDIO_MS = 1000.0
MAX_NOTES = 1024
MAX_NOTE_BYTES = 1024 * 1024
MAX_PLAYED = 16
MAX_UNYIELDING = 8  # events that are taken in a row without letting other tasks run

Note: TypeAlias = Message | ChannelOpened | ChannelClosed | Digit | Draining
_T = TypeVar("_T", bound=Event)


class Waiters:
    """Tasks that wait until something comes. A parking lot, of which all that is needed for a frame costs half as much."""

    __slots__ = ("tasks",)

    def __init__(self) -> None:
        self.tasks: list[trio.lowlevel.Task] = []

    async def wait(self) -> None:
        task = trio.lowlevel.current_task()
        self.tasks.append(task)

        def abort(_: object) -> trio.lowlevel.Abort:
            self.tasks.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def wake(self) -> None:
        tasks, self.tasks = self.tasks, []
        for task in tasks:
            trio.lowlevel.reschedule(task)


class Inbox:
    """The link puts, the agent's streams take. Putting never waits."""

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics
        self._frames: deque[Frame] = deque()
        self._frames_ms = 0.0
        self._dropped = False
        self._notes: deque[Note] = deque()
        self._note_bytes = 0
        self._played: deque[Played] = deque(maxlen=MAX_PLAYED)
        self._read_notes = False
        self.is_closed = False
        # Who reads frames alone is not woken by a message, nor the other way round: each wake costs as much as a frame.
        self._for_frames = Waiters()
        self._for_messages = Waiters()
        self._for_all = Waiters()

    def put_frame(self, frame: Frame) -> None:
        self._frames.append(frame)
        self._frames_ms += frame.duration_ms
        while self._frames_ms > AUDIO_MS and len(self._frames) > 1:
            self._frames_ms -= self._frames.popleft().duration_ms
            self._dropped = True
            self._statistics.frames_dropped += 1
        if self._for_frames.tasks:
            self._for_frames.wake()
        if self._for_all.tasks:
            self._for_all.wake()

    def put_note(self, note: Note) -> bool:
        """False: the agent reads its messages too slowly, the bound is reached, nothing was taken in."""
        size = _size(note)
        while len(self._notes) >= MAX_NOTES or self._note_bytes + size > MAX_NOTE_BYTES:
            if self._read_notes:
                return False
            self._note_bytes -= _size(self._notes.popleft())
            self._statistics.messages_unread += 1
        self._notes.append(note)
        self._note_bytes += size
        self._for_messages.wake()
        self._for_all.wake()
        return True

    def put_played(self, played: Played) -> None:
        self._played.append(played)
        self._for_all.wake()

    def close(self) -> None:
        """Nothing more will come; what is here may still be read."""
        self.is_closed = True
        for waiters in (self._for_frames, self._for_messages, self._for_all):
            waiters.wake()

    @property
    def has_something(self) -> bool:
        """A stream need not wait, perhaps: it finds something, or the end."""
        return bool(self._frames or self._notes or self._played or self.is_closed)

    def frames(self) -> Stream[Frame]:
        return Stream(self, self._take_frame, self._for_frames)

    def messages(self) -> Stream[Message]:
        return Stream(self, self._take_message, self._for_messages)

    def events(self) -> Stream[Event]:
        return Stream(self, self._take_event, self._for_all)

    def _take_frame(self) -> Frame | None:
        if not self._frames:
            return None
        frame = self._frames.popleft()
        self._frames_ms -= frame.duration_ms
        if self._dropped:
            self._dropped = False
            return frame._replace(gap=True)
        return frame

    def _take_note(self) -> Note | None:
        self._read_notes = True
        if not self._notes:
            return None
        note = self._notes.popleft()
        self._note_bytes -= _size(note)
        return note

    def _take_message(self) -> Message | None:
        while (note := self._take_note()) is not None:
            if isinstance(note, Message):
                return note
        return None

    def _take_event(self) -> Event | None:
        # Rare things first: audio would otherwise hold them up by as much as it is late itself.
        note = self._take_note()
        if note is not None:
            return note
        return self._played.popleft() if self._played else self._take_frame()


class Stream(Generic[_T]):
    """An async iterator that ends with the call. Unlike a generator it survives a time-out around one step."""

    def __init__(self, inbox: Inbox, take: Callable[[], _T | None], waiters: Waiters) -> None:
        self._inbox = inbox
        self._take = take
        self._waiters = waiters
        self._unyielding = 0

    def __aiter__(self) -> Stream[_T]:
        return self

    async def __anext__(self) -> _T:
        inbox, take = self._inbox, self._take
        if inbox.has_something:  # else we are about to wait
            await trio.lowlevel.checkpoint_if_cancelled()
        while (event := take()) is None:
            if inbox.is_closed:
                raise StopAsyncIteration
            await self._waiters.wait()
            self._unyielding = 0
        self._unyielding += 1
        if self._unyielding > MAX_UNYIELDING:  # what waits is bounded, but other tasks wait, too
            self._unyielding = 0
            await trio.lowlevel.cancel_shielded_checkpoint()
        return event


def _size(note: Note) -> int:
    return len(note.data) if isinstance(note, Message) else 0

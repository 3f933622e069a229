"""Who reads the events of a session: the caller's client, and the controllers that have attached to its call.

Each has a row of its own, and a task that sends from it, so that one who reads slowly holds up nobody else. The caller's row
waits until he can be reached at all. A row is bounded by bytes. What waits for a controller beyond that is thrown away, which
an `error` tells it: the transceiver takes all that is for controllers, and cuts those that do not read, so only a link that
stalls comes to this. The caller's client is then `lost`, for a session without its client is none.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Awaitable, Callable

import msgspec
import trio

from agent.realtime.ids import new_id
from agent.realtime.server_events import ErrorEvent
from protocol.agentlink import FIRST_CONTROLLER
from protocol.realtime.errors import ApiError, Code
from protocol.wire import Entropy

__all__ = ["CALLER", "Clients"]

CALLER = 0
"""The number of the caller's client; that of a controller is its channel."""

# Implementation constants
MAX_WAITING_BYTES = 4 * 1024 * 1024  # of events that a client does not read
EVENT_OVERHEAD = 256  # bytes that an event costs besides its text
MAX_EARLY_EVENTS = 256  # before the caller can be reached
ROOM_BYTES = 256 * 1024  # of the caller's that wait: then sound, which goes out in events, waits too


class _Row:
    def __init__(self) -> None:
        self.events: deque[str] = deque()
        self.waiting_bytes = 0
        self.has_some = trio.Event()
        self.scope = trio.CancelScope()

    def put(self, data: str) -> bool:
        if self.waiting_bytes > MAX_WAITING_BYTES:
            return False
        self.events.append(data)
        self.waiting_bytes += len(data) + EVENT_OVERHEAD
        self.has_some.set()
        return True

    def clear(self) -> None:
        """Of all but the first, which may be on its way."""
        while len(self.events) > 1:
            self.waiting_bytes -= len(self.events.pop()) + EVENT_OVERHEAD

    async def first(self) -> str:
        while not self.events:
            self.has_some = trio.Event()
            await self.has_some.wait()
        return self.events[0]

    def drop_first(self) -> None:
        self.waiting_bytes -= len(self.events.popleft()) + EVENT_OVERHEAD


class Clients:
    """`send` is given an event and the channel it is for, None for the caller's; False from it: that one is gone."""

    def __init__(
        self,
        send: Callable[[str, int | None], Awaitable[bool]],
        lose: Callable[[], None],
        counters: Counter[str] | None = None,
        entropy: Entropy = os.urandom,
    ) -> None:
        self.counters: Counter[str] = Counter() if counters is None else counters
        """`early`: events for a caller who could not be reached yet; `lost`: clients that read too slowly; `missed`: times
        that a controller's events were thrown away."""
        self._entropy = entropy
        self._send = send
        self._lose = lose
        self._caller = _Row()
        self._is_reached = trio.Event()
        self._is_lost = False
        self._controllers: dict[int, _Row] = {}
        self._room = trio.lowlevel.ParkingLot()
        self._sent = trio.lowlevel.ParkingLot()

    def reach_caller(self) -> None:
        self._is_reached.set()

    def join(self, channel: int, nursery: trio.Nursery) -> None:
        """A controller: it reads what is told from now on."""
        row = self._controllers[channel] = _Row()
        nursery.start_soon(self._write, row, channel)

    def leave(self, channel: int) -> None:
        if (row := self._controllers.pop(channel, None)) is not None:
            row.scope.cancel()

    def number_of(self, channel: int) -> int:
        """The client who says something on that channel."""
        return channel if channel >= FIRST_CONTROLLER else CALLER

    def put(self, data: str, number: int | None) -> None:
        """An event for one client, or, with None, for all."""
        if number is None or number == CALLER:
            self._put_to_caller(data)
        for channel in [*self._controllers] if number is None else [number]:
            row = self._controllers.get(channel)
            if row is not None and not row.put(data):
                self.counters["missed"] += 1
                row.clear()
                row.put(self._told_of_loss())
                row.put(data)

    def _put_to_caller(self, data: str) -> None:
        row = self._caller
        is_full = len(row.events) >= MAX_EARLY_EVENTS or row.waiting_bytes > MAX_WAITING_BYTES
        if is_full and not self._is_reached.is_set():
            self.counters["early"] += 1  # a client without a channel reads none
        elif not row.put(data) and not self._is_lost:
            self._is_lost = True
            self.counters["lost"] += 1
            self._lose()

    def _told_of_loss(self) -> str:
        failure = ApiError(Code.EVENTS_MISSED, "Events were thrown away: they could not be sent.", kind="server_error")
        event = ErrorEvent.of(failure, None)
        event.event_id = new_id("event", self._entropy)
        return msgspec.json.encode(event).decode()

    async def wait_room(self) -> None:
        """While much waits for the caller's client."""
        await trio.lowlevel.checkpoint()
        while self._caller.waiting_bytes > ROOM_BYTES:
            await self._room.park()

    async def wait_sent(self) -> None:
        """Until the caller's client was sent everything, if it can be reached at all."""
        await trio.lowlevel.checkpoint()
        while self._caller.events and self._is_reached.is_set():
            await self._sent.park()

    async def write_to_caller(self) -> None:
        """The task of the caller's row, until cancelled."""
        await self._is_reached.wait()
        await self._write(self._caller, None)

    async def _write(self, row: _Row, channel: int | None) -> None:
        with row.scope:
            while True:
                await self._send(await row.first(), channel)
                row.drop_first()
                if row is not self._caller:
                    continue
                if row.waiting_bytes <= ROOM_BYTES:
                    self._room.unpark_all()
                if not row.events:
                    self._sent.unpark_all()

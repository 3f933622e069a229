"""The synchronous media loop of all calls: one task that owns every socket and every core, as the transceiver's engine does.

A turn, without an await in it:

1. Sockets that are readable, all of them: each datagram to its call; what this causes leaves at once.
2. Deadlines that have passed, from one heap for all calls.
3. Every 20 ms, on an absolute schedule: one pass over all calls that talk. A pass that comes late says how late; ticks that
   were missed are caught up, up to MAX_BEHIND of them, and what is beyond is skipped and counted. Who measures must not
   blame others for his own delays.

Each call has a socket of its own, so that to the relay the calls look like as many callers. Between the call and its socket
may lie a bad network (`loadgen.network`): then datagrams wait in its shapers, and the socket is replaced when it rebinds.
"""

from __future__ import annotations

import heapq
import itertools
import math
import selectors
import socket
from collections import Counter
from collections.abc import Callable

import trio

from loadgen.call import Call
from loadgen.distribution import Histogram
from loadgen.network import Datagram, Network
from udpio import BatchSocket, PlainSocket, SocketOptions, bind_udp, is_batch_supported
from udpio.shaper import Shaper

__all__ = ["Driver", "Line"]

# Implementation constants
TICK_SECONDS = 0.020
MAX_BEHIND = 5  # ticks sent late in a burst; a microphone's buffer would hold about as many
MAX_BATCHES = 4  # of one socket in one turn
OPTIONS = SocketOptions(batch_size=16, receive_buffer=256 * 1024, send_buffer=256 * 1024, dual_stack=True)
IPV4_OPTIONS = SocketOptions(batch_size=16, receive_buffer=256 * 1024, send_buffer=256 * 1024)


Socket = BatchSocket | PlainSocket


class Line:
    """A call, its socket, the network between them, and what its task waits for."""

    __slots__ = ("answered", "call", "down", "over", "ready", "rebind_at", "rebound_at", "scheduled_at", "socket", "up")

    def __init__(self, call: Call, sock: Socket, network: Network, now: float) -> None:
        self.call = call
        self.socket = sock
        self.up: Shaper[Datagram] | None = None
        self.down: Shaper[Datagram] | None = None
        if (shapers := network.shapers(call.number)) is not None:
            self.up, self.down = shapers
        self.rebind_at = now + network.rebind_seconds
        self.rebound_at: float | None = None  # since when nothing has come to the new socket
        self.ready = trio.Event()  # set up, or over
        self.answered = trio.Event()  # nothing is missing after it stopped talking, or over
        self.over = trio.Event()
        self.scheduled_at = math.inf

    def next_timeout(self) -> float:
        due = min(self.call.next_timeout(), self.rebind_at)
        if self.up is not None and self.down is not None:
            due = min(due, self.up.next_timeout(), self.down.next_timeout())
        return due


class Driver:
    """`open`, `touch` and `close` may be called by any task, between turns."""

    def __init__(self, clock: Callable[[], float] = trio.current_time, network: Network | None = None) -> None:
        self.clock = clock
        self.network = network or Network()
        self.lines: set[Line] = set()
        self.worst_lateness = 0.0
        self.ticks_skipped = 0
        self.socket_errors: Counter[str] = Counter()  # of sockets that are closed, as the next two
        self.datagrams_sent = 0
        self.datagrams_received = 0
        self.network_drops: Counter[str] = Counter()  # by the network of this run, of lines that are closed
        self.rebindings = 0
        self.rebind_recovery = Histogram()  # from a rebinding until something comes to the new socket
        self._selector = selectors.DefaultSelector()
        self._heap: list[tuple[float, int, Line]] = []
        self._order = itertools.count()
        self._tick = 0  # the next one
        self._schedule_start = clock()
        self._sleep: trio.CancelScope | None = None
        self._raw: dict[Socket, socket.socket] = {}

    # Lines

    def open(self, call: Call) -> Line:
        """Raises OSError when the system gives no socket."""
        line = Line(call, self._bind(), self.network, self.clock())
        self._listen(line)
        self.lines.add(line)
        return line

    def touch(self, line: Line) -> None:
        """The call was changed from outside: send what it has to say, and look at its deadlines again."""
        self._settle(line)
        if self._sleep is not None:
            self._sleep.cancel()

    def close(self, line: Line) -> None:
        """The call says goodbye, and its socket is gone. No network delays the goodbye: nobody is here any more to send it."""
        if line not in self.lines:
            return
        line.call.close(self.clock())
        line.socket.send_batch(line.call.take_datagrams())
        self.lines.discard(line)
        line.scheduled_at = -math.inf  # its entries in the heap are void
        for shaper in (line.up, line.down):
            if shaper is not None:
                self.network_drops += shaper.drops
        self._retire(line.socket)

    # Sockets

    def _bind(self) -> Socket:
        try:
            raw, options = bind_udp("::", 0, OPTIONS), OPTIONS
        except OSError:  # no IPv6 here
            raw, options = bind_udp("0.0.0.0", 0, IPV4_OPTIONS), IPV4_OPTIONS
        made: Socket = (BatchSocket if is_batch_supported() else PlainSocket)(raw, options)
        self._raw[made] = raw
        return made

    def _listen(self, line: Line) -> None:
        self._selector.register(self._raw[line.socket], selectors.EVENT_READ, line)

    def _retire(self, sock: Socket) -> None:
        counters = sock.counters
        self.socket_errors += counters.receive_errors + counters.send_errors
        self.datagrams_sent += counters.datagrams_sent
        self.datagrams_received += counters.datagrams_received
        self._selector.unregister(self._raw.pop(sock))
        sock.close()

    def _rebind(self, line: Line, now: float) -> None:
        """The line goes on from another port; what still comes to the old one reaches nobody."""
        line.rebind_at = now + self.network.rebind_seconds
        try:
            fresh = self._bind()
        except OSError as error:
            self.socket_errors[f"rebind_{error.errno}"] += 1
            return
        self._retire(line.socket)
        line.socket = fresh
        self._listen(line)
        line.rebound_at = now
        self.rebindings += 1

    # The loop

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                with trio.CancelScope(deadline=self._next_wake()) as self._sleep:
                    await trio.lowlevel.wait_readable(self._selector.fileno())
                self._sleep = None
                self.turn()
        finally:
            for line in list(self.lines):
                self.close(line)
            self._selector.close()

    def turn(self) -> None:
        self._receive()
        self._run_deadlines()
        self._run_ticks()

    def _next_wake(self) -> float:
        due = self._heap[0][0] if self._heap else math.inf
        return min(due, self._tick_time(self._tick)) if self.lines else due

    def _tick_time(self, tick: int) -> float:
        return self._schedule_start + tick * TICK_SECONDS

    def _receive(self) -> None:
        for key, _events in self._selector.select(0):
            line: Line = key.data
            sock, receive = line.socket, line.call.receive_untrusted
            for _ in range(MAX_BATCHES):
                batch = sock.receive_batch()
                now = self.clock()
                if batch and line.rebound_at is not None:
                    self.rebind_recovery.add(now - line.rebound_at)
                    line.rebound_at = None
                for data, source in batch:
                    if line.down is None:
                        receive(data, source, now)
                    else:
                        line.down.send((bytes(data), source), len(data), now)
                if len(batch) < sock.batch_size:
                    break
            self._settle(line)

    def _run_deadlines(self) -> None:
        heap = self._heap
        now = self.clock()
        for _ in range(len(heap)):
            if not heap or heap[0][0] > now:
                return
            due, _order, line = heapq.heappop(heap)
            if due == line.scheduled_at:  # else rescheduled since, or closed
                line.scheduled_at = math.inf
                if line.rebind_at <= now:
                    self._rebind(line, now)
                line.call.handle_timeout(now)
                self._settle(line)

    def _run_ticks(self) -> None:
        behind = math.floor((self.clock() - self._schedule_start) / TICK_SECONDS) - self._tick + 1
        if behind > MAX_BEHIND or not self.lines:
            skipped = behind - (MAX_BEHIND if self.lines else 0)
            if self.lines:
                self.ticks_skipped += skipped
                for line in self.lines:
                    line.call.skip(skipped)
            self._tick += max(0, skipped)
        while self._tick_time(self._tick) <= self.clock():
            self._run_tick(self._tick)
            self._tick += 1

    def _run_tick(self, tick: int) -> None:
        due = self._tick_time(tick)
        for line in self.lines:
            if line.call.talking:
                now = self.clock()
                self.worst_lateness = max(self.worst_lateness, now - due)
                line.call.tick(tick, now - due, now)
                self._settle(line)

    def _settle(self, line: Line) -> None:
        call = line.call
        if line.up is not None and line.down is not None:
            self._pass_through(call, line.up, line.down, line.socket)
        elif datagrams := call.take_datagrams():
            line.socket.send_batch(datagrams)
        due = line.next_timeout()
        if due < line.scheduled_at:  # one that moved away is found to have nothing to do when its old time comes
            line.scheduled_at = due
            heapq.heappush(self._heap, (due, next(self._order), line))
        if call.is_over:
            for event in (line.ready, line.answered, line.over):
                event.set()
        elif call.is_ready:
            line.ready.set()
            if not call.talking and call.is_answered:
                line.answered.set()

    def _pass_through(self, call: Call, up: Shaper[Datagram], down: Shaper[Datagram], sock: Socket) -> None:
        """What the network has carried arrives, and what that causes sets out."""
        now = self.clock()
        for data, source in down.poll(now):
            call.receive_untrusted(data, source, now)
        for datagram in call.take_datagrams():
            up.send(datagram, len(datagram[0]), now)
        if arrived := up.poll(now):
            sock.send_batch(arrived)

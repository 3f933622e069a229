"""The synchronous media loop of all calls: one task that owns every socket and every core, as the transceiver's engine does.

A turn, without an await in it:

1. Sockets that are readable, all of them: each datagram to its call; what this causes leaves at once.
2. What the bad network between has carried, from one queue for all calls; deadlines that have passed, from another.
3. Every millisecond, on an absolute schedule, the twentieth part of the calls whose 20 ms are over: callers do not speak
   in step. A frame that leaves late says how late; frames that were missed are caught up, up to MAX_BEHIND of a call, and
   what is beyond is skipped and counted. Who measures must not blame others for his own delays. What is due goes between
   the datagrams, too: else a loop that has many to read would speak in bursts, and the stack answer in bursts.

With few calls the loop wakes for every datagram; with many it looks once in one to three milliseconds, for a wake-up costs as
much as several datagrams. How long datagrams wait for it is measured on every SAMPLE_EVERYth socket.

Each call has a socket of its own. Between the call and its socket may lie a bad network (`loadgen.network`): then datagrams
wait until it has carried them, and the socket is replaced when it rebinds.
"""

from __future__ import annotations

import heapq
import itertools
import math
import selectors
import time
from collections import Counter
from collections.abc import Callable

import trio

from loadgen.call import Call
from loadgen.callsocket import Addresses, CallSocket
from loadgen.distribution import MANY, Histogram
from loadgen.network import Network, UnderWay
from protocol.address import TransportAddress
from protocol.peer import DONE, LEFT
from udpio.shaper import Shaper

__all__ = ["TICK_SECONDS", "Driver", "Line"]

# Implementation constants
TICK_SECONDS = 0.020
PHASES = 20
STEP_SECONDS = TICK_SECONDS / PHASES
MAX_BEHIND = 5  # frames of a call sent late in a burst; a microphone's buffer would hold about as many
MAX_ROUNDS = (
    16  # over the readable sockets, one datagram of each, in one turn: what a held-up loop finds is old already
)
PACED_LINES = 20  # from so many calls on the loop looks once in STEP_SECONDS: a datagram each way in that time
CROWDED_LINES = 150  # from so many on, at every third
CROWDED_STEPS = 3
MAX_STEP_WAIT = 0.003  # that what is due waits for datagrams to be read
SAMPLE_EVERY = 16
MAX_UNDER_WAY = 4096  # datagrams of one call and direction in the bad network; the newest are dropped beyond it


class Line:
    """A call, its socket, the network between them, and what its task waits for."""

    __slots__ = (
        "answered",
        "call",
        "down",
        "is_ready",
        "over",
        "phase",
        "ready",
        "rebind_at",
        "rebound_at",
        "scheduled_at",
        "socket",
        "told",
        "under_way",
        "up",
    )

    def __init__(self, call: Call, sock: CallSocket, network: Network, phase: int, now: float) -> None:
        self.call = call
        self.socket = sock
        self.phase = phase
        self.up: Shaper[bytes] | None = None
        self.down: Shaper[bytes] | None = None
        if (shapers := network.shapers(call.number)) is not None:
            self.up, self.down = shapers
        self.under_way = [0, 0]  # in the bad network: up, down
        self.rebind_at = now + network.rebind_seconds
        self.rebound_at: float | None = None  # since when nothing has come to the new socket
        self.is_ready = False
        self.ready = trio.Event()  # set up, or over
        self.answered = trio.Event()  # nothing is missing after it stopped talking, or over
        self.told = trio.Event()  # the agent has said how well our audio came, or over
        self.over = trio.Event()
        self.scheduled_at = math.inf

    def next_timeout(self) -> float:
        return min(self.call.next_timeout(), self.rebind_at)


class Driver:
    """`open`, `touch` and `close` may be called by any task, between turns."""

    def __init__(self, clock: Callable[[], float] | None = None, network: Network | None = None) -> None:
        self.clock = clock = clock or _trio_clock()
        self.network = network or Network()
        self.lines: set[Line] = set()
        self.worst_lateness = 0.0
        self.send_lateness = Histogram()  # of every frame
        self.receive_delay = Histogram()  # of the datagrams of sampled sockets: from the kernel to us
        self.ticks_skipped = 0
        self.socket_errors: Counter[str] = Counter()  # of sockets that are closed, as the next two
        self.datagrams_sent = 0
        self.datagrams_received = 0
        self.network_drops: Counter[str] = Counter()  # by the network of this run, of lines that are closed
        self.rebindings = 0
        self.measured = [self.send_lateness]  # gathered by each turn
        self.rebind_recovery = Histogram()  # from a rebinding until something comes to the new socket
        self._selector = selectors.DefaultSelector()
        self._addresses = Addresses()
        self._heap: list[tuple[float, int, Line]] = []
        # What the bad network carries, of all calls: (line, 0 up or 1 down, datagram, address of the other side).
        self._carried: UnderWay[tuple[Line, int, bytes, TransportAddress]] = UnderWay()
        self._order = itertools.count()
        self._opened = 0
        self._phases: list[list[Line]] = [[] for _ in range(PHASES)]
        self._schedule_start = clock()
        self._set_step(0)
        self._sleep: trio.CancelScope | None = None

    # Lines

    def open(self, call: Call) -> Line:
        """Raises OSError when the system gives no socket."""
        phase = min(range(PHASES), key=lambda phase: len(self._phases[phase]))
        line = Line(call, self._bind(), self.network, phase, self.clock())
        self._selector.register(line.socket, selectors.EVENT_READ, line)
        self._phases[phase].append(line)
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
        for data, destination in line.call.take_datagrams():
            line.socket.send(data, destination)
        self.lines.discard(line)
        self._phases[line.phase].remove(line)
        line.scheduled_at = -math.inf  # its entries in the heap are void
        for shaper in (line.up, line.down):
            if shaper is not None:
                self.network_drops += shaper.drops
        self._retire(line.socket)

    # Sockets

    def _bind(self) -> CallSocket:
        self._opened += 1
        return CallSocket(self._addresses, sampled=self._opened % SAMPLE_EVERY == 1)

    def _retire(self, sock: CallSocket) -> None:
        self.socket_errors += sock.errors
        self.datagrams_sent += sock.sent
        self.datagrams_received += sock.received
        self._selector.unregister(sock)
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
        self._selector.register(fresh, selectors.EVENT_READ, line)
        line.rebound_at = now
        self.rebindings += 1

    # The loop

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                with trio.CancelScope(deadline=self._next_wake()) as self._sleep:
                    if len(self.lines) >= PACED_LINES:
                        await trio.sleep_forever()
                    else:
                        await trio.lowlevel.wait_readable(self._selector.fileno())
                self._sleep = None
                self.turn()
        finally:
            for line in list(self.lines):
                self.close(line)
            self._selector.close()

    def turn(self) -> None:
        self._receive()
        if self._carried:
            self._deliver()
        self._run_deadlines()
        self._run_steps()
        for histogram in self.measured:
            histogram.gather(MANY)

    def _next_wake(self) -> float:
        if len(self.lines) >= PACED_LINES:  # else every deadline and every datagram in the network would be a wake-up
            return self._step_time(self._step + (CROWDED_STEPS - 1 if len(self.lines) >= CROWDED_LINES else 0))
        due = min(self._heap[0][0] if self._heap else math.inf, self._carried.next_arrival())
        return min(due, self._step_time(self._next_busy_step())) if self.lines else due

    def _step_time(self, step: int) -> float:
        return self._schedule_start + step * STEP_SECONDS

    def _set_step(self, step: int) -> None:
        self._step = step  # the next one
        self._step_due = self._step_time(step)

    def _next_busy_step(self) -> int:
        step = self._step
        while not self._phases[step % PHASES]:
            step += 1
        return step

    def _receive(self) -> None:
        for _ in range(MAX_ROUNDS):
            readable = self._selector.select(0)
            for key, _events in readable:
                if self._receive_one(key.data) > self._step_due + MAX_STEP_WAIT:
                    self._run_steps()
            if not readable:
                return

    def _receive_one(self, line: Line) -> float:
        """When it came; 0 if nothing did."""
        sock = line.socket
        if sock.sampled:
            length, source, waited = sock.receive_sampled()
            if length:
                self.receive_delay.add(waited)
        else:
            length, source = sock.receive()
        if not length:
            return 0.0
        now = self.clock()
        if line.rebound_at is not None:
            self.rebind_recovery.add(now - line.rebound_at)
            line.rebound_at = None
        if line.down is None:
            self._hear(line, length, source, now)
        else:
            self._carry(line, line.down, 1, self._addresses.incoming.view[:length].tobytes(), source, now)
        return now

    def _hear(self, line: Line, length: int, source: TransportAddress, now: float) -> None:
        """What lies at the beginning of the incoming arena."""
        call, arena = line.call, self._addresses.incoming
        outcome = call.hear_untrusted(arena, length, source, now)
        if outcome == DONE and line.is_ready and call.talking:
            return
        if outcome == LEFT:
            call.receive_untrusted(bytes(arena.view[:length]), source, now)
        self._settle(line)

    def _carry(
        self, line: Line, shaper: Shaper[bytes], way: int, data: bytes, address: TransportAddress, now: float
    ) -> None:
        for due in shaper.route(len(data), now):
            if line.under_way[way] >= MAX_UNDER_WAY:
                shaper.drops["queue_full"] += 1
                continue
            line.under_way[way] += 1
            self._carried.put(due, (line, way, data, address))

    def _deliver(self) -> None:
        """What the network has carried by now arrives."""
        lines = self.lines
        now = self.clock()
        for line, way, data, address in self._carried.take(now):
            line.under_way[way] -= 1
            if line not in lines:
                continue
            if way:
                self._addresses.incoming.view[: len(data)] = data
                self._hear(line, len(data), address, now)
            else:
                line.socket.send(data, address)

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

    def _run_steps(self) -> None:
        now = self.clock()
        if not self.lines:
            self._set_step(max(self._step, math.floor((now - self._schedule_start) / STEP_SECONDS) + 1))
            return
        behind = math.floor((now - self._schedule_start) / STEP_SECONDS) - self._step + 1
        if behind >= (MAX_BEHIND + 1) * PHASES:
            skipped = behind // PHASES - MAX_BEHIND
            self.ticks_skipped += skipped
            self._set_step(self._step + skipped * PHASES)
            for line in self.lines:
                line.call.skip(skipped)
        while self._step_due <= now:
            step = self._step
            self._set_step(step + 1)
            lines = self._phases[step % PHASES]
            if lines:
                self._run_step(step, lines)
                now = self.clock()

    def _run_step(self, step: int, lines: list[Line]) -> None:
        due, tick = self._step_time(step), step // PHASES
        arena, clock, note = self._addresses.outgoing, self.clock, self.send_lateness.waiting.append
        for line in lines:
            call = line.call
            if not call.talking:
                continue
            now = clock()
            lateness = now - due
            note(lateness)
            if lateness > self.worst_lateness:
                self.worst_lateness = lateness
            length = call.speak(arena, tick, lateness, now)
            if length:
                packet = arena.view[: abs(length)]
                if line.up is None:
                    line.socket.send(packet, call.remote)
                else:
                    self._carry(line, line.up, 0, packet.tobytes(), call.remote, now)
                if length > 0:
                    continue
            if length < 0 or (not length and call.tick(tick, lateness, now)):
                self._settle(line)
            else:
                self._flush(line, now)

    def _settle(self, line: Line) -> None:
        """After whatever may have moved a deadline of the call, or ended it."""
        call = line.call
        self._flush(line, self.clock())
        due = line.next_timeout()
        if due < line.scheduled_at:  # one that moved away is found to have nothing to do when its old time comes
            line.scheduled_at = due
            heapq.heappush(self._heap, (due, next(self._order), line))
        if call.is_over:
            for event in (line.ready, line.answered, line.told, line.over):
                event.set()
        elif call.is_ready:
            if not line.is_ready and (remote := call.only_remote) is not None:
                line.socket.connect(remote)
            line.is_ready = True
            line.ready.set()
            if call.is_answered:
                line.answered.set()
            if call.slots is not None:
                line.told.set()

    def _flush(self, line: Line, now: float) -> None:
        if line.up is None:
            for data, destination in line.call.take_datagrams():
                line.socket.send(data, destination)
        else:
            for data, destination in line.call.take_datagrams():
                self._carry(line, line.up, 0, data, destination, now)


def _trio_clock() -> Callable[[], float]:
    """trio's own time at a fraction of its price: it is asked for with every datagram."""
    ahead = trio.current_time() - time.perf_counter()
    return lambda: time.perf_counter() + ahead

"""The synchronous media loop: one task that owns the UDP socket and all calls.

A turn, without an await in it:

1. What other tasks left in the inbox: words of agents, hang-ups.
2. Datagrams, batch by batch: trunk datagrams are taken apart into frames; each goes to its call, STUN requests by the
   ufrag in them, everything else by the path it came along. What this causes leaves before the next batch is read.
   Handshakes are dear: a few go on in each turn, others wait for the next one.
3. Deadlines that have passed, from one heap for all calls; those of the relays (transceiver.relays).
4. Every 20 ms while any agent speaks: the pacer, all calls in one pass.
5. The agent links are told that frames wait.

A call costs little, waking up costs as much as many packets. So while many come, the loop does not wait for the next one but
sleeps for `latency_budget` seconds, and then takes all that have gathered (`udpio.tick`); while few come it adds no delay.

A turn does a bounded amount of each, then lets the other tasks run. A call that raises is ended by itself, with the
reason `internal_error` (with `strict`, for tests, the exception goes on).
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter, deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import trio

from protocol.address import Path, TransportAddress
from protocol.agentlink import MediaRecord
from protocol.demux import TRUNK_FIRST_BYTE
from protocol.errors import DecodeError
from protocol.peer import DONE, LEFT, SETTLE
from protocol.routing import Trunk, is_notice
from protocol.srtp import Arena, SrtpLibrary, library_named
from protocol.stun import peek_username_untrusted
from service.logs import get_logger
from transceiver.backends.base import Attachment, BackendEvent, Call, MediaFrame
from transceiver.intake import Intake
from transceiver.media import PACE_SECONDS
from transceiver.outbox import Outbox, relay_local
from transceiver.relays import Relays
from transceiver.routes import Route, RouteTable, Sender, holds
from transceiver.session.reasons import CloseReason
from transceiver.session.session import Session
from transceiver.session.tables import Transport
from udpio import Tick, UdpSocket

__all__ = ["Engine"]

log = get_logger()

DTLS_BYTES, RTP_BYTES = range(20, 64), range(128, 192)  # RFC 7983 §7

# Implementation constants
# Datagrams of DTLS handshakes in one turn: each may cost two signatures, and media must not wait for many.
MAX_HANDSHAKES = 8
MAX_WAITING_HANDSHAKES = 1024  # datagrams; more are dropped, and come again
MAX_BATCHES = 8  # in one turn: then the other tasks, and the pacer, have their say
MAX_RECEIVE_SECONDS = 0.010  # in one turn, to a batch: fifty messages in each datagram would make it half a second
MAX_DEADLINES = 256
STALL_SECONDS = 0.1  # without a turn while agents speak

Command = Callable[..., object]


class Engine:
    """Owner of the socket and of every call. `add` and `post` may be called by any task, between turns."""

    def __init__(
        self,
        socket: UdpSocket,
        trunk: Trunk | None,
        *,
        direct: bool,
        mtu: int = 1452,
        strict: bool = False,
        latency_budget: float = 0.0,
        srtp: SrtpLibrary | None = None,
    ) -> None:
        library = srtp or library_named()
        self.drops: Counter[str] = Counter()
        self.turns = 0
        self.sessions: dict[bytes, Session] = {}  # by our ufrag; by two of them while ICE restarts
        self.outbox = Outbox(socket, trunk, mtu, library)
        self._intake = Intake(socket, library)
        self.routes = RouteTable(self.outbox, self.drops, is_words=self._intake.is_words)
        self.relays = Relays(trunk, mtu, self._proven_paths) if trunk is not None else None
        self.on_connected: Callable[[Session], None] = _ignore
        self.on_release: Callable[[Session], None] = _ignore
        self.on_turn_end: Callable[[], None] = _nothing  # the agent links gather what a turn brought
        self._socket = socket
        self._trunk = trunk
        self._direct = direct
        self._strict = strict
        self._heap: list[tuple[float, int, Session]] = []
        self._order = itertools.count()
        self._inbox: deque[tuple[Session, Command, tuple[Any, ...]] | list[MediaFrame]] = deque()
        self._touched: dict[Session, None] = {}
        self._handshakes: deque[tuple[bytes, Path]] = deque()  # datagrams that wait for the next turn
        self._handshakes_left = MAX_HANDSHAKES  # in this turn
        self._playing: dict[Session, float] = {}  # when the pacer has to look at it again, at the latest
        self._next_tick = math.inf
        self._turned_at = math.inf
        self._sleep: trio.CancelScope | None = None
        self._tick = Tick(latency_budget)
        self._packets = 0  # that came in this turn
        self._clock: Callable[[], float] | None = None  # in `run`: how long a turn takes

    # What other tasks do

    def add(self, session: Session) -> None:
        """From now on its datagrams find it."""
        self.sessions[session.ufrag] = session
        self._touched[session] = None
        self._wake()

    def rename(self, session: Session, ufrag: bytes) -> None:
        """ICE restarts: checks with the new ufrag find the session too, those with the one in use still do."""
        selected = session.ufrags[0] if session.peer.ice.selected is not None else None
        for old in session.ufrags:
            if old != selected:
                self.sessions.pop(old, None)
        session.ufrags = [ufrag] if selected is None else [selected, ufrag]
        self.sessions[ufrag] = session
        self._touched[session] = None
        self._wake()

    def command(self, session: Session, command: Command, *arguments: object) -> None:
        """Have `command(session, *arguments, now)` called in the next turn."""
        self._inbox.append((session, command, arguments))
        self._wake()

    def post(self, call: Call, attachment: Attachment | None, event: BackendEvent) -> None:
        """A word of an agent (`Inbox`). The inbox holds no more than the links' messages of one wake."""
        assert isinstance(call, Session)
        self.command(call, Session.handle_backend, attachment, event)

    def post_media(self, frames: list[MediaFrame]) -> None:
        """Audio of agents, for many calls at once (`Inbox`)."""
        self._inbox.append(frames)
        self._wake()

    def _wake(self) -> None:
        if self._sleep is not None:
            self._sleep.cancel()
            self._sleep = None  # once is enough

    # What sessions do (`Host`)

    def send(self, data: bytes, path: Path) -> None:
        self.outbox.send(data, path)

    def connected(self, session: Session) -> None:
        self.on_connected(session)

    def retire(self, session: Session) -> None:
        for old in session.ufrags[:-1]:
            self.sessions.pop(old, None)
        del session.ufrags[:-1]

    def release(self, session: Session) -> None:
        for ufrag in session.ufrags:
            self.sessions.pop(ufrag, None)
        self.routes.forget(session)
        session.released = True
        self._playing.pop(session, None)
        self._touched.pop(session, None)
        self.on_release(session)

    # The loop

    async def run(self) -> None:
        """Until cancelled, or until the socket is closed."""
        self._clock = trio.current_time
        now = trio.current_time()
        while True:
            # One scope for as many waits as it takes until one is cut short: making it costs as much as a wait.
            with trio.CancelScope() as scope:
                while True:
                    if pause := self._tick.next_sleep(self._packets, now):
                        await trio.sleep(pause)  # deadlines and the agents' words wait as long as packets may
                    elif (due := self.next_timeout()) <= now:
                        await trio.lowlevel.checkpoint()  # costs a quarter of a wait that is over before it begins
                    else:
                        scope.deadline, self._sleep = due, scope
                        await self._socket.wait_readable()
                        scope.deadline, self._sleep = math.inf, None
                    now = self._take_turn()
            self._sleep = None
            now = self._take_turn()

    def _take_turn(self) -> float:
        now = trio.current_time()
        self._packets = 0
        self.turn(now)
        return now

    def turn(self, now: float) -> None:
        """One turn."""
        self.turns += 1
        if (pause := now - self._turned_at) > STALL_SECONDS:
            for session in self._playing:  # and so the pacer's ticks were due
                session.conversation.stalled(pause, now)
        self._turned_at = now
        self._run_inbox(now)
        self.outbox.flush()
        self._receive(now)
        self._run_deadlines(now)
        if self.relays is not None and (notices := self.relays.handle_timeout(now)):
            self._socket.send_batch(notices)
        self._pace(now)
        self.on_turn_end()
        self._run_inbox(now)  # what an agent in this very process answered
        self._settle()
        self.outbox.flush()

    def flush(self, now: float) -> None:
        """Carry out what is in the inbox and send it, outside the loop: the last act of a process that ends."""
        self._run_inbox(now)
        self._settle()
        self.outbox.flush()

    def next_timeout(self) -> float:
        """When the next turn is due, if no datagram comes before."""
        if self._inbox or self._touched or self._handshakes:
            return -math.inf
        due = min(self._heap[0][0] if self._heap else math.inf, self._next_tick)
        return due if self.relays is None else min(due, self.relays.next_timeout())

    def _run_inbox(self, now: float) -> None:
        for _ in range(len(self._inbox)):
            item = self._inbox.popleft()
            if isinstance(item, list):
                self._play(item, now)
            else:
                self._carry_out(*item, now)

    def _play(self, frames: list[MediaFrame], now: float) -> None:
        for call, attachment, record in cast(list[tuple[Session, Attachment, MediaRecord]], frames):
            became, route = LEFT, call.route
            try:
                if route is not None and call.reason is None:
                    became = call.conversation.follow_play(attachment, record, route, now)
            except Exception as error:  # noqa: BLE001 - of this call, and it is logged there
                self._fail(call, error, now)
                continue
            if became == DONE:
                continue
            if became == LEFT:
                self._carry_out(call, Session.handle_backend, (attachment, record), now)
                if not call.released:
                    self.routes.open(call)
                continue
            self._start_pacing(call, now)  # a frame waits, or the peer has spoken up
            if became == SETTLE:
                self._guard(call, now, call.settle, now)

    def _carry_out(self, session: Session, command: Command, arguments: tuple[Any, ...], now: float) -> None:
        if session.released:
            return
        self._guard(session, now, command, session, *arguments, now)
        if session.conversation.is_playing and not session.released:
            if session.conversation.next_pace() <= now:
                self._guard(session, now, session.pace, now)
            self._start_pacing(session, now)

    def _receive(self, now: float) -> None:
        self._handshakes_left = MAX_HANDSHAKES
        for _ in range(min(MAX_HANDSHAKES, len(self._handshakes))):
            self._receive_client_untrusted(*self._handshakes.popleft(), now)
        intake = self._intake
        for _ in range(MAX_BATCHES):
            count = intake.receive()
            self._packets += count
            if intake.is_words and self._direct:
                self._receive_words_untrusted(count, now)
            else:
                for index, offset, length in intake.datagrams(count):
                    self._receive_datagram_untrusted(index, offset, length, now)
            if count < intake.batch_size or (self._clock is not None and self._clock() - now >= MAX_RECEIVE_SECONDS):
                return
            self.outbox.flush()

    def _receive_words_untrusted(self, count: int, now: float) -> None:
        """A batch whose senders are told by words: those that have a route take it, without a look at what they are."""
        intake = self._intake
        arena, srtp, find = intake.arena, intake.srtp, self.routes.direct.get
        columns: Iterator[tuple[int, int, int, int]] = zip(
            range(count), arena.name_cells[:count].tolist(), intake.offsets, arena.cells[:count].tolist()
        )
        if arena.is_cut:
            columns = filter(lambda column: column[3] <= arena.slot_size, columns)
        for index, word, offset, length in columns:
            route = find(word)
            if route is None:
                self._receive_datagram_untrusted(index, offset, length, now)
                continue
            try:  # as in _follow_untrusted, whose call alone would cost what the look-up does
                became = route.lane.receive_untrusted(srtp, offset, length, now)
            except Exception as error:  # noqa: BLE001 - of this call, and it is logged there
                self._fail(route.session, error, now)
                continue
            if became == LEFT:
                self._receive_datagram_untrusted(index, offset, length, now)
            elif became == SETTLE:
                self._guard(route.session, now, route.session.settle, now)

    def _receive_datagram_untrusted(self, index: int, offset: int, length: int, now: float) -> None:
        arena = self._intake.arena
        data = arena.payloads[index][:length]
        source = arena.address(index)
        if length and data[0] == TRUNK_FIRST_BYTE:
            self._receive_trunk_untrusted(data, offset, source, now)
        elif not self._direct:
            self.drops["not_direct"] += 1
        elif (
            self._intake.is_words
            or (route := self.routes.direct.get(source)) is None
            or not self._follow_untrusted(route, self._intake.srtp, offset, length, now)
        ):
            self._receive_client_untrusted(data, Path(b"", source), now)

    def _receive_trunk_untrusted(self, datagram: memoryview, offset: int, relay: TransportAddress, now: float) -> None:
        if self._trunk is None or self.relays is None:
            self.drops["no_trunk"] += 1
            return
        try:
            if is_notice(datagram):
                self.relays.hear_untrusted(datagram, relay, now)
                return
            ingress, position, clients = self._trunk.split_untrusted(datagram)
        except DecodeError as error:
            self.drops[error.reason] += 1
            return
        self._packets += len(clients) - 1
        local = relay_local(relay, ingress)
        routes, srtp = self.routes.trunk.get(local, _NO_ROUTES), self._intake.srtp
        carries = bool(routes)
        for length, client in clients:
            route = routes.get(client)
            if route is None or not self._follow_untrusted(route, srtp, offset + position, length, now):
                path = Path(local, TransportAddress(client))
                self._receive_client_untrusted(datagram[position : position + length], path, now)
                carries = carries or ((held := self.routes.by_path.get(path)) is not None and holds(held, path))
            position += length
        if carries:  # else it may be a recorded datagram, sent again by anyone: nobody is spoken to for that
            self.relays.heard(relay, now)

    def _proven_paths(self) -> Iterator[Path | None]:
        """Of every call, for a relay that has forgotten them."""
        for session in list(self.sessions.values()):
            path = session.peer.ice.selected
            yield path if path is not None and holds(session, path) else None

    def _follow_untrusted(self, route: Route, srtp: Arena, offset: int, length: int, now: float) -> bool:
        """The short way of a packet of a call: whether it has taken it. If not, it has not been touched."""
        try:
            became = route.lane.receive_untrusted(srtp, offset, length, now)
        except Exception as error:  # noqa: BLE001 - of this call, and it is logged there
            self._fail(route.session, error, now)
            return True
        if became == SETTLE:
            self._guard(route.session, now, route.session.settle, now)
        return became != LEFT

    def _receive_client_untrusted(self, data: bytes | memoryview, path: Path, now: float) -> None:
        if len(data) > 1 and data[0] == 0 and data[1] == 1:  # a STUN Binding request: it names its call
            session = self._find_by_ufrag_untrusted(data)
        else:
            session = self.routes.by_path.get(path)
            if session is None:
                self.drops["unknown_path"] += 1
            elif (
                data
                and data[0] in DTLS_BYTES
                and session.transport is Transport.HANDSHAKING
                and self._must_wait(data, path)
            ):
                return
        if session is None:
            return
        self._guard(session, now, session.receive_untrusted, bytes(data), path, now)
        if self.routes.by_path.get(path) is not session:
            self.routes.learn(session, path)
        elif data and data[0] in RTP_BYTES and session.transport is Transport.SECURE and not session.released:
            self.routes.open(session)

    def _must_wait(self, data: bytes | memoryview, path: Path) -> bool:
        if self._handshakes_left:
            self._handshakes_left -= 1
            return False
        if len(self._handshakes) < MAX_WAITING_HANDSHAKES:
            self._handshakes.append((bytes(data), path))
        else:
            self.drops["handshakes_waiting"] += 1
        return True

    def _find_by_ufrag_untrusted(self, data: bytes | memoryview) -> Session | None:
        try:
            username = peek_username_untrusted(data)
        except DecodeError as error:
            self.drops[error.reason] += 1
            return None
        session = self.sessions.get(bytes(username).partition(b":")[0])
        if session is None:
            self.drops["unknown_call"] += 1
        return session

    # Deadlines

    def _run_deadlines(self, now: float) -> None:
        heap = self._heap
        for _ in range(MAX_DEADLINES):
            if not heap or heap[0][0] > now:
                return
            due, _order, session = heapq.heappop(heap)
            if session.released or due != session.scheduled_at:  # it has an earlier entry by now
                continue
            session.scheduled_at = math.inf
            self._guard(session, now, session.handle_timeout, now)

    def _settle(self) -> None:
        """Put the calls that this turn touched where they belong in the heap.

        A call whose deadline moved away keeps its old place, and is found to have nothing to do when that comes.
        """
        for session in self._touched:
            due = session.next_timeout()
            if due < session.scheduled_at:
                session.scheduled_at = due
                heapq.heappush(self._heap, (due, next(self._order), session))
        self._touched.clear()

    # The pacer

    def _start_pacing(self, session: Session, now: float) -> None:
        self._playing[session] = now
        if self._next_tick == math.inf:
            self._next_tick = now + PACE_SECONDS

    def _pace(self, now: float) -> None:
        if now < self._next_tick:
            return
        playing, late = self._playing, now - self._next_tick
        for session in [session for session, look_at in playing.items() if look_at <= now]:
            due = session.conversation.next_pace()
            if due <= now:
                try:
                    if session.pace(now, late) == SETTLE:
                        self._touched[session] = None
                except Exception as error:  # noqa: BLE001 - of this call, and it is logged there
                    self._fail(session, error, now)
                due = session.conversation.next_pace()
            if session.conversation.is_playing and not session.released:
                playing[session] = due if due != math.inf else now
            else:
                playing.pop(session, None)
        if not playing:
            self._next_tick = math.inf
            return
        self._next_tick += PACE_SECONDS * (
            1 + late // PACE_SECONDS
        )  # those that were missed were made good by this one

    # Faults

    def _guard(self, session: Session, now: float, command: Command, *arguments: object) -> None:
        """One call's exception ends that call, never the process."""
        try:
            command(*arguments)
        except Exception as error:  # noqa: BLE001 - of this call, and it is logged there
            self._fail(session, error, now)
        if not session.released:
            self._touched[session] = None

    def _fail(self, session: Session, error: Exception, now: float) -> None:
        log.error("a call failed", call=session.call_id, exc_info=error)
        self.drops["internal_error"] += 1
        self._abandon(session, now)
        if self._strict:
            raise error

    def _abandon(self, session: Session, now: float) -> None:
        """Goodbyes if they still can be said; forgotten in any case."""

        def forget() -> None:
            if self.sessions.get(session.ufrag) is session:
                session.reason = session.reason or CloseReason.INTERNAL_ERROR
                self.release(session)

        for step in (
            partial(session.close, CloseReason.INTERNAL_ERROR, now),
            partial(session.release_now, now),
            forget,
        ):
            try:
                step()
            except Exception as error:
                log.error("a failed call could not be closed in order", call=session.call_id, exc_info=error)


_NO_ROUTES: dict[Sender, Route] = {}


def _ignore(_: Session) -> None:
    pass


def _nothing() -> None:
    pass

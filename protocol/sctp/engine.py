"""The engine of an association: its states and their effects, its timers, its packets.

`association` drives it; this half knows nothing of what arrives.

1. `_fire` gives an event to the state table and carries out the effects that it names.
2. `_time_out` asks every timer.
3. `_flush` packs what all parts want to send: control first, then acknowledgement, then data, in as few packets as it
   needs.
"""

from __future__ import annotations

import math
from collections import Counter

from protocol.fsm import Machine
from protocol.sctp import states
from protocol.sctp.channels import Channels
from protocol.sctp.chunks import DATA_HEADER_LENGTH, ChunkType, build_cause, build_shutdown
from protocol.sctp.config import SctpConfig
from protocol.sctp.congestion import RoundTrip
from protocol.sctp.events import AssociationClosed, AssociationUp, Output, Packet
from protocol.sctp.handshake import Handshake
from protocol.sctp.inbound import Receiver
from protocol.sctp.outbound import Sender
from protocol.sctp.packet import COMMON_HEADER_LENGTH, build_chunk, build_packet
from protocol.sctp.parameters import ParameterType, build_parameter
from protocol.sctp.pathmtu import BLACK_HOLE_TIMEOUTS, PathMtu
from protocol.sctp.resets import StreamResets
from protocol.sctp.serial import TSN_MASK
from protocol.sctp.states import AssociationState, Effect
from protocol.sctp.timers import ControlTimer, Heartbeat
from protocol.wire import Entropy

__all__ = ["OPENING", "RECEIVES", "SENDS", "Engine"]

_S = AssociationState
# Tuples: an enum compares faster than it hashes.
SENDS = (_S.ESTABLISHED, _S.SHUTDOWN_PENDING, _S.SHUTDOWN_RECEIVED)  # §6: may send DATA
RECEIVES = (_S.ESTABLISHED, _S.SHUTDOWN_PENDING, _S.SHUTDOWN_SENT)  # §6: may receive DATA
OPENING = (_S.CLOSED, _S.COOKIE_WAIT, _S.COOKIE_ECHOED)
_CLOSING = (_S.SHUTDOWN_PENDING, _S.SHUTDOWN_RECEIVED)  # moves on once all is acknowledged


class Engine:
    def __init__(
        self,
        *,
        is_client: bool,
        max_message_size_remote: int,
        entropy: Entropy,
        local_port: int = 5000,
        remote_port: int = 5000,
        config: SctpConfig | None = None,
    ) -> None:
        self._config = config = config or SctpConfig()
        self._is_client = is_client
        self._ports = (local_port, remote_port)
        self._path = PathMtu(config, entropy)
        self._capacity = 0  # bytes of chunks in a packet
        self.drops: Counter[str] = Counter()
        self._outputs: list[Output] = []
        self._control: list[bytes] = []
        self._machine = Machine((states.REGION,))
        self.state = self._machine.state(AssociationState)  # read several times a packet; set in _fire alone
        self._guard = math.inf  # the deadline of the present state, and its event
        self._guard_event: type = states.GuardExpired
        self._reason = ""
        self._stale_cookies = 0
        self._errors = 0  # association error counter (§8.1)
        self._riding = False  # data may ride along with the first COOKIE ECHO (§5.1 C)
        self._dirty = False  # a command without `now` left something to send
        self._handshake = handshake = Handshake(config, entropy)
        self._round_trip = RoundTrip(config)
        self._setup = ControlTimer(config.setup_initial, config.setup_max)  # T1
        self._shutdown = ControlTimer(config.rto_initial, config.rto_max)  # T2
        self._heartbeat = Heartbeat(config.heartbeat_interval, entropy)
        self._sender = Sender(config, handshake.local_tsn, self._round_trip, self.drops)
        self._fit_path()
        self._receiver = Receiver(config, self.drops)
        self._resets = StreamResets(handshake.local_tsn, self._sender, self._receiver, self._round_trip, self.drops)
        self._channels = Channels(
            is_client=is_client,
            max_message_size_remote=max_message_size_remote,
            config=config,
            sender=self._sender,
            resets=self._resets,
            outputs=self._outputs,
            drops=self.drops,
        )

    @property
    def round_trip_time(self) -> float | None:
        return self._round_trip.smoothed

    # States

    def _fire(self, event: object, now: float) -> None:
        before = self.state
        effects = self._machine.fire(event)
        self.state = self._machine.state(AssociationState)
        if self.state is not before:
            self._guard = math.inf
            for _, deadline in self._machine.deadlines():
                self._guard = now + float(getattr(self._config, deadline.timeout))
                self._guard_event = deadline.event
        for effect in effects:
            self._carry_out(effect, now)

    def _carry_out(self, effect: object, now: float) -> None:
        match effect:
            case Effect.SEND_INIT:
                self._emit([self._handshake.init()], 0)
                self._setup.start(now)
            case Effect.SEND_COOKIE_ECHO:
                self._control += self._handshake.echo
                self._sender.repeat_all()  # what rode along with an earlier, stale one
                self._riding = True
                self._setup.start(now)
            case Effect.SEND_COOKIE_ACK:
                self._control.append(build_chunk(ChunkType.COOKIE_ACK, 0, b""))
            case Effect.ESTABLISH:
                self._setup.stop()
                self._sender.establish(now)
                self._heartbeat.start(now)
                self._path.start(now)
                self._outputs.append(AssociationUp())
                self._channels.association_up(self._handshake.outbound_streams, self._handshake.can_reset)
            case Effect.SEND_SHUTDOWN:
                self._send_shutdown(now)
            case Effect.SEND_SHUTDOWN_ACK:
                self._control.append(build_chunk(ChunkType.SHUTDOWN_ACK, 0, b""))
                self._shutdown.start(now)
            case Effect.SEND_SHUTDOWN_COMPLETE:
                self._control.append(build_chunk(ChunkType.SHUTDOWN_COMPLETE, 0, b""))
            case Effect.BURY:
                self._bury()

    def _send_shutdown(self, now: float) -> None:
        self._control.append(build_shutdown(self._receiver.cumulative & TSN_MASK))
        self._shutdown.start(now)

    def _bury(self) -> None:
        self._setup.stop()
        self._shutdown.stop()
        self._heartbeat.stop()
        self._path.stop()
        self._sender.clear()
        self._receiver.clear()
        self._resets.clear()
        self._channels.association_down()
        self._outputs.append(AssociationClosed(self._reason))

    def _fail(self, reason: str, now: float, cause: int | None = None) -> None:
        if self.state is _S.DEAD:
            return
        if cause is not None and self._handshake.peer_tag:
            self._control = [build_chunk(ChunkType.ABORT, 0, build_cause(cause))]
        self._reason = reason
        self._fire(states.Failed(), now)

    # Timers

    def _next_deadline(self) -> float:
        if self._dirty:
            return 0.0
        deadline = min(self._setup.deadline, self._shutdown.deadline, self._guard)
        if self.state in SENDS:
            deadline = min(
                deadline,
                self._sender.deadline,
                self._resets.deadline,
                self._heartbeat.deadline,
                self._path.deadline,
            )
        if self.state in RECEIVES:
            deadline = min(deadline, self._receiver.deadline)
        return deadline

    def _time_out(self, now: float) -> None:
        if self._guard <= now:
            self._reason = "shutdown_timeout"
            self._fire(self._guard_event(), now)
        if self._setup.expired(now):
            self._repeat_setup(now)
        if self._shutdown.expired(now):
            self._repeat_shutdown(now)
        if self.state in SENDS:
            if self._sender.deadline <= now and self._sender.handle_timeout(now):
                self._count_error(now)
            if self._resets.deadline <= now:
                self._round_trip.back_off()
                self._resets.handle_timeout()
                self._count_error(now)
            if self._heartbeat.deadline <= now:
                self._beat(now)
            if self._path.deadline <= now:
                self._control.append(self._path.probe(now, self._round_trip.rto))
        if self.state in RECEIVES and self._receiver.deadline <= now:
            self._receiver.handle_timeout()

    def _count_error(self, now: float) -> None:
        self._errors += 1
        if self._errors > self._config.association_max_retransmits:
            self._fail("retransmissions", now)
        elif self._errors == BLACK_HOLE_TIMEOUTS and self._path.fall_back(now):
            self._fit_path()

    def _fit_path(self) -> None:
        self._capacity = (self._path.size - COMMON_HEADER_LENGTH) & ~3  # chunks are padded
        self._sender.fit(self._capacity)

    def _repeat_setup(self, now: float) -> None:
        if self._setup.repeats >= self._config.max_init_retransmits:
            if self._is_client:
                self._fail("setup_timeout", now)
            else:
                self._setup.stop()  # for good: the peer may open it when it likes, and we answer
            return
        self._setup.repeat(now)
        if self.state is _S.COOKIE_WAIT:
            self._emit([self._handshake.init()], 0)
        else:
            self._control += self._handshake.echo
            self._sender.repeat_all()
            self._riding = True

    def _repeat_shutdown(self, now: float) -> None:
        self._shutdown.repeat(now)
        if self.state is _S.SHUTDOWN_SENT:
            self._control.append(build_shutdown(self._receiver.cumulative & TSN_MASK))
        else:
            self._control.append(build_chunk(ChunkType.SHUTDOWN_ACK, 0, b""))
        self._count_error(now)

    def _beat(self, now: float) -> None:
        if self._heartbeat.unanswered:
            self._count_error(now)
        information = self._heartbeat.beat(now, idle=self._sender.drained)
        if information and self.state is not _S.DEAD:
            value = build_parameter(ParameterType.HEARTBEAT_INFO, information)
            self._control.append(build_chunk(ChunkType.HEARTBEAT, 0, value))

    # Sending

    def _flush(self, now: float) -> None:
        self._dirty = False
        self._pack(now)
        if self.state in _CLOSING and self._sender.drained:
            self._fire(states.Drained(), now)
            self._pack(now)

    def _pack(self, now: float) -> None:
        """All that is to be sent, in as few packets as it needs."""
        capacity = self._capacity
        sender, receiver, state = self._sender, self._receiver, self.state
        chunks: list[bytes] = []
        room = capacity
        sends = state in SENDS or self._riding
        waiting, has_data = self._control, sender.has_something
        if not (waiting or receiver.due or has_data or self._resets.has_something):
            return  # as after every second packet of those that only bring data
        if state in RECEIVES and receiver.pending and (receiver.due or (sends and sender.wants_to_send())):
            waiting.append(receiver.sack(capacity))
        if waiting:
            self._control = []
            for chunk in waiting:
                if len(chunk) > room and chunks:
                    self._emit(chunks)
                    chunks, room = [], capacity
                chunks.append(chunk)
                room -= len(chunk)
        if sends and has_data:
            sender.begin_burst(now)
            while True:
                data = sender.next_chunk(room, now, alone=not chunks)
                if data is not None:
                    chunks.append(data)
                    room -= len(data)
                    if room > DATA_HEADER_LENGTH or self._riding:
                        continue
                    self._emit(chunks)
                    sender.end_packet()
                    chunks, room = [], capacity
                elif chunks and not self._riding:
                    self._emit(chunks)
                    sender.end_packet()
                    chunks, room = [], capacity
                else:
                    break
        self._riding = False
        if chunks:
            self._emit(chunks)
        # After the data: what was found too old a moment ago is in it.
        if state in SENDS and (forward := sender.forward_tsn(now)) is not None:
            self._emit([forward])
        if state is _S.ESTABLISHED and (request := self._resets.poll(now)) is not None:
            self._emit([request])
        self._channels.flushed()

    def _emit(self, chunks: list[bytes], tag: int | None = None) -> None:
        local_port, remote_port = self._ports
        tag = self._handshake.peer_tag if tag is None else tag
        self._outputs.append(Packet(build_packet(local_port, remote_port, tag, chunks)))

"""An SCTP association for data channels, sans I/O (RFC 9260 over DTLS as RFC 8261, 8831, 8832 have it).

This file routes; who decides:

1. Bytes → `packet` → ports and verification tag → one handler for each chunk type.
2. INIT, INIT ACK, cookies → `handshake`, then an event to the state table (`states`), whose effects are done here.
3. DATA → `inbound` → messages → `channels`; SACK → `outbound`; RE-CONFIG → `resets`.
4. After every verb `_flush` packs what all of them want to send, control first, then acknowledgement, then data.

One path, no multihoming, no AUTH, no ECN: none of them exists over DTLS (RFC 8261 §6).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

from protocol.errors import DecodeError, RemoteError
from protocol.fsm import Machine
from protocol.sctp import states
from protocol.sctp.channels import Channels
from protocol.sctp.chunks import (
    ACTION_REPORT,
    ACTION_SKIP,
    CauseCode,
    ChunkType,
    build_cause,
    build_shutdown,
    parse_causes_untrusted,
    parse_data_untrusted,
    parse_forward_tsn_untrusted,
    parse_sack_untrusted,
    parse_shutdown_untrusted,
)
from protocol.sctp.config import SctpConfig
from protocol.sctp.congestion import RoundTrip
from protocol.sctp.events import AssociationClosed, AssociationUp, Output, Packet
from protocol.sctp.handshake import Handshake, StaleCookie
from protocol.sctp.inbound import Receiver
from protocol.sctp.outbound import Sender
from protocol.sctp.packet import (
    COMMON_HEADER_LENGTH,
    ParsedPacket,
    RawChunk,
    build_chunk,
    build_packet,
    parse_packet_untrusted,
)
from protocol.sctp.parameters import ParameterType, ResetResponse, build_parameter, parse_reconfig_untrusted
from protocol.sctp.reassembly import Message
from protocol.sctp.resets import StreamResets
from protocol.sctp.serial import TSN_MASK
from protocol.sctp.states import AssociationState, Effect
from protocol.sctp.timers import ControlTimer, Heartbeat
from protocol.wire import Entropy

__all__ = ["Association"]

_S = AssociationState
_SENDS = frozenset({_S.ESTABLISHED, _S.SHUTDOWN_PENDING, _S.SHUTDOWN_RECEIVED})  # §6: may send DATA
_RECEIVES = frozenset({_S.ESTABLISHED, _S.SHUTDOWN_PENDING, _S.SHUTDOWN_SENT})  # §6: may receive DATA
_CLOSING = frozenset({_S.SHUTDOWN_PENDING, _S.SHUTDOWN_RECEIVED})  # once all is acknowledged
_OPENING = frozenset({_S.CLOSED, _S.COOKIE_WAIT, _S.COOKIE_ECHOED})
_ALONE = frozenset({ChunkType.INIT, ChunkType.INIT_ACK, ChunkType.SHUTDOWN_COMPLETE})  # §6.10: never bundled
_T_BIT = 1  # ABORT, SHUTDOWN COMPLETE: the tag is the receiver's view of it, reflected (§8.5.1)


class Association:
    """See the module. After each call drain `poll()`; call `handle_timeout` when `next_timeout()` has come."""

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
        self._ports = (local_port, remote_port)
        self._capacity = config.max_packet_size - COMMON_HEADER_LENGTH
        self.drops: Counter[str] = Counter()
        self._outputs: list[Output] = []
        self._control: list[bytes] = []
        self._machine = Machine((states.REGION,))
        self._since = 0.0  # when the present state was entered
        self._reason = ""
        self._errors = 0  # association error counter (§8.1)
        self._riding = False  # data may ride along with the first COOKIE ECHO (§5.1 C)
        self._dirty = False  # a command without `now` left something to send
        self._handshake = handshake = Handshake(config, entropy)
        self._round_trip = RoundTrip(config)
        self._setup = ControlTimer(config.rto_initial, config.rto_max)  # T1
        self._shutdown = ControlTimer(config.rto_initial, config.rto_max)  # T2
        self._heartbeat = Heartbeat(config.heartbeat_interval, entropy)
        self._sender = Sender(config, handshake.local_tsn, self._round_trip, self.drops)
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

    # Commands

    @property
    def state(self) -> AssociationState:
        return self._machine.state(AssociationState)

    @property
    def round_trip_time(self) -> float | None:
        return self._round_trip.smoothed

    def connect(self, now: float) -> None:
        """Send INIT. Both sides may."""
        self._fire(states.Associate(), now)
        self._flush(now)

    def open_channel(
        self,
        label: str,
        protocol: str = "",
        ordered: bool = True,
        negotiated_id: int | None = None,
        now: float | None = None,
    ) -> int:
        """Open a channel, or adopt a negotiated one; before the association is up, too. Without `now` the OPEN goes
        out with the next call that has one: `next_timeout` says at once. Raises ChannelLimit, MessageTooLarge."""
        number = self._channels.open(label, protocol, ordered, negotiated_id)
        self._dirty = True
        if now is not None:
            self._flush(now)
        return number

    def send(self, channel: int, data: str | bytes, now: float) -> bool:
        """False: the buffer is full (ChannelWritable follows) or the channel is closing, and nothing was taken.
        Raises UnknownChannel, MessageTooLarge."""
        if not self._channels.send(channel, data):
            return False
        self._flush(now)
        return True

    def buffered_amount(self, channel: int) -> int:
        """Bytes accepted and not yet sent."""
        return self._sender.buffered(channel)

    def close_channel(self, channel: int, now: float) -> None:
        """Close after what was sent before; ChannelClosed when the peer closed it as well. Raises UnknownChannel."""
        self._channels.close(channel)
        self._flush(now)

    def close(self, now: float) -> None:
        """SHUTDOWN: what is queued is delivered first, then AssociationClosed("shutdown")."""
        self._reason = self._reason or "shutdown"
        self._fire(states.ShutdownRequested(), now)
        self._flush(now)

    def abort(self, now: float) -> None:
        """ABORT: at once, whatever is queued; AssociationClosed("aborted")."""
        self._fail("aborted", now, CauseCode.USER_INITIATED_ABORT)
        self._flush(now)

    # Verbs

    def poll(self) -> list[Output]:
        outputs = self._outputs.copy()
        self._outputs.clear()
        return outputs

    def next_timeout(self) -> float:
        if self._dirty:
            return 0.0
        deadline = min(self._setup.deadline, self._shutdown.deadline, self._guard()[0])
        if self.state in _SENDS:
            deadline = min(deadline, self._sender.deadline, self._resets.deadline, self._heartbeat.deadline)
        if self.state in _RECEIVES:
            deadline = min(deadline, self._receiver.deadline)
        return deadline

    def _guard(self) -> tuple[float, type]:
        for _, deadline in self._machine.deadlines():
            return self._since + float(getattr(self._config, deadline.timeout)), deadline.event
        return math.inf, type(None)

    def handle_timeout(self, now: float) -> None:
        guard, event = self._guard()
        if guard <= now:
            self._reason = "shutdown_timeout"
            self._fire(event(), now)
        if self._setup.expired(now):
            self._repeat_setup(now)
        if self._shutdown.expired(now):
            self._repeat_shutdown(now)
        if self.state in _SENDS:
            if self._sender.deadline <= now and self._sender.handle_timeout(now):
                self._count_error(now)
            if self._resets.deadline <= now:
                self._round_trip.back_off()
                self._resets.handle_timeout()
                self._count_error(now)
            if self._heartbeat.deadline <= now:
                self._beat(now)
        if self.state in _RECEIVES and self._receiver.deadline <= now:
            self._receiver.handle_timeout()
        self._flush(now)

    def receive_untrusted(self, data: bytes | memoryview, now: float) -> None:
        try:
            packet = parse_packet_untrusted(bytes(data))
            self._check_tag_untrusted(packet)
            for chunk in packet.chunks:
                if not self._receive_chunk_untrusted(chunk, now):
                    break
        except DecodeError as error:
            self.drops[error.reason] += 1
        except RemoteError as error:
            self._fail(error.reason, now, error.code)
        if self.state in _RECEIVES:
            self._receiver.end_packet(now)
        self._flush(now)

    # Receiving

    def _check_tag_untrusted(self, packet: ParsedPacket) -> None:
        """RFC 9260 §8.5. Everything that does not belong to this association is dropped in silence."""
        local_port, remote_port = self._ports
        if packet.destination_port != local_port or packet.source_port != remote_port:
            raise DecodeError("ports")
        first = packet.chunks[0]
        if first.type in _ALONE and len(packet.chunks) > 1:
            raise DecodeError("chunk_bundled")
        expected = self._handshake.local_tag
        if first.type == ChunkType.INIT:
            expected = 0
        elif first.type in (ChunkType.ABORT, ChunkType.SHUTDOWN_COMPLETE) and first.flags & _T_BIT:
            expected = self._handshake.peer_tag or -1
        if packet.verification_tag != expected:
            raise DecodeError("verification_tag")

    def _receive_chunk_untrusted(self, chunk: RawChunk, now: float) -> bool:
        """False: leave the rest of the packet."""
        handler = _HANDLERS.get(chunk.type)
        if handler is not None:
            handler(self, chunk, now)
            return self.state is not _S.DEAD
        self.drops["chunk_unknown"] += 1
        if chunk.type & ACTION_REPORT and self.state in _SENDS:
            whole = build_chunk(chunk.type, chunk.flags, chunk.value)[: self._capacity // 2]
            self._control.append(build_chunk(ChunkType.ERROR, 0, build_cause(CauseCode.UNRECOGNIZED_CHUNK_TYPE, whole)))
        return bool(chunk.type & ACTION_SKIP)

    def _on_data_untrusted(self, chunk: RawChunk, now: float) -> None:
        if self.state not in _RECEIVES:
            raise DecodeError("state")
        data = parse_data_untrusted(chunk)
        self._deliver(self._receiver.receive(data))
        if data.stream >= self._config.streams:
            cause = build_cause(CauseCode.INVALID_STREAM_IDENTIFIER, data.stream.to_bytes(2, "big") + bytes(2))
            self._control.append(build_chunk(ChunkType.ERROR, 0, cause))
        self._after_data(now)

    def _on_forward_tsn_untrusted(self, chunk: RawChunk, now: float) -> None:
        if self.state not in _RECEIVES:
            raise DecodeError("state")
        self._deliver(self._receiver.forward(parse_forward_tsn_untrusted(chunk.value)))
        self._after_data(now)

    def _after_data(self, now: float) -> None:
        if (answer := self._resets.perform_deferred()) is not None:
            self._control.append(answer)
            self._channels.resets_done()
        if self.state is _S.SHUTDOWN_SENT:  # §9.2: acknowledged together with another SHUTDOWN
            self._receiver.due = True
            self._send_shutdown(now)

    def _deliver(self, messages: list[Message]) -> None:
        for message in messages:
            try:
                self._channels.receive(message)
            except DecodeError as error:
                self.drops[error.reason] += 1

    def _on_sack_untrusted(self, chunk: RawChunk, now: float) -> None:
        if self.state not in _SENDS and self.state is not _S.SHUTDOWN_SENT:
            raise DecodeError("state")
        if self._sender.acknowledge(parse_sack_untrusted(chunk.value), now):
            self._errors = 0

    def _on_init_untrusted(self, chunk: RawChunk, now: float) -> None:
        if self.state not in _OPENING and self.state is not _S.ESTABLISHED:
            raise DecodeError("state")
        tag, answer = self._handshake.answer_init_untrusted(chunk.value, self.state is _S.ESTABLISHED, now)
        self._emit([answer], tag)

    def _on_init_ack_untrusted(self, chunk: RawChunk, now: float) -> None:
        if self.state is not _S.COOKIE_WAIT:
            raise DecodeError("state")  # §5.2.3
        self._handshake.accept_init_ack_untrusted(chunk.value)
        self._meet_peer()
        self._fire(states.InitAckAccepted(), now)

    def _on_cookie_echo_untrusted(self, chunk: RawChunk, now: float) -> None:
        established = self.state not in _OPENING
        try:
            self._handshake.accept_cookie_untrusted(chunk.value, established, now)
        except StaleCookie as stale:
            late = min(int(stale.late * 1e6), 0xFFFFFFFF).to_bytes(4, "big")
            self._emit([build_chunk(ChunkType.ERROR, 0, build_cause(CauseCode.STALE_COOKIE, late))], stale.tag)
            raise
        if not established:
            self._meet_peer()
        self._fire(states.CookieAccepted(), now)

    def _meet_peer(self) -> None:
        if (peer := self._handshake.peer) is not None:
            self._sender.set_peer_window(peer.window)
            self._receiver.start(peer.tsn)
            self._resets.start(peer.tsn)

    def _on_cookie_ack_untrusted(self, chunk: RawChunk, now: float) -> None:
        self._fire(states.CookieAcknowledged(), now)

    def _on_heartbeat_untrusted(self, chunk: RawChunk, now: float) -> None:
        if self.state not in _SENDS or len(chunk.value) > self._capacity - 4:
            raise DecodeError("heartbeat")
        self._control.append(build_chunk(ChunkType.HEARTBEAT_ACK, 0, chunk.value))

    def _on_heartbeat_ack_untrusted(self, chunk: RawChunk, now: float) -> None:
        if not self._heartbeat.answered(chunk.value):
            raise DecodeError("heartbeat_ack")
        self._errors = 0

    def _on_abort_untrusted(self, chunk: RawChunk, now: float) -> None:
        self._reason = "aborted_by_peer"
        self._fire(states.Aborted(), now)

    def _on_error_untrusted(self, chunk: RawChunk, now: float) -> None:
        for code, _ in parse_causes_untrusted(chunk.value):
            self.drops[f"error_{CauseCode(code).name.lower() if code in _CAUSES else 'other'}"] += 1
            if code == CauseCode.STALE_COOKIE:
                self._fire(states.CookieStale(), now)

    def _on_shutdown_untrusted(self, chunk: RawChunk, now: float) -> None:
        if self.state in _OPENING:
            raise DecodeError("state")
        if self._sender.acknowledge_cumulative(parse_shutdown_untrusted(chunk.value), now):
            self._errors = 0
        self._reason = self._reason or "shutdown_by_peer"
        self._fire(states.ShutdownReceived(), now)

    def _on_shutdown_ack_untrusted(self, chunk: RawChunk, now: float) -> None:
        if self.state is _S.DEAD:  # our SHUTDOWN COMPLETE was lost (§8.4, 5)
            self._control.append(build_chunk(ChunkType.SHUTDOWN_COMPLETE, 0, b""))
        self._fire(states.ShutdownAckReceived(), now)

    def _on_shutdown_complete_untrusted(self, chunk: RawChunk, now: float) -> None:
        self._fire(states.ShutdownCompleteReceived(), now)

    def _on_reconfig_untrusted(self, chunk: RawChunk, now: float) -> None:
        if self.state is not _S.ESTABLISHED:
            raise DecodeError("state")
        for parameter in parse_reconfig_untrusted(chunk.value):
            if not isinstance(parameter, ResetResponse):
                self._control.append(self._resets.receive_request(parameter))
            elif self._resets.receive_response(parameter, now):
                self._errors = 0
        self._channels.resets_done()

    # States

    def _fire(self, event: object, now: float) -> None:
        before = self.state
        effects = self._machine.fire(event)
        if self.state is not before:
            self._since = now
        for effect in effects:
            self._carry_out(effect, now)

    def _carry_out(self, effect: object, now: float) -> None:
        match effect:
            case Effect.SEND_INIT:
                self._emit([self._handshake.init()], 0)
                self._setup.start(now)
            case Effect.SEND_COOKIE_ECHO:
                self._control += self._handshake.echo
                self._riding = True
                self._setup.start(now)
            case Effect.SEND_COOKIE_ACK:
                self._control.append(build_chunk(ChunkType.COOKIE_ACK, 0, b""))
            case Effect.ESTABLISH:
                self._setup.stop()
                self._sender.establish(now)
                self._heartbeat.start(now)
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

    def _count_error(self, now: float) -> None:
        self._errors += 1
        if self._errors > self._config.association_max_retransmits:
            self._fail("retransmissions", now)

    def _repeat_setup(self, now: float) -> None:
        if self._setup.repeats >= self._config.max_init_retransmits:
            self._fail("setup_timeout", now)
            return
        self._setup.repeat(now)
        if self.state is _S.COOKIE_WAIT:
            self._emit([self._handshake.init()], 0)
        else:
            self._control += self._handshake.echo

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
        sends = state in _SENDS or self._riding
        waiting = self._control
        if state in _RECEIVES and receiver.pending and (receiver.due or (sends and sender.wants_to_send())):
            waiting.append(receiver.sack())
        if waiting:
            self._control = []
            for chunk in waiting:
                if len(chunk) > room:
                    self._emit(chunks)
                    chunks, room = [], capacity
                chunks.append(chunk)
                room -= len(chunk)
        if sends:
            sender.begin_burst(now)
            while True:
                data = sender.next_chunk(room, now)
                if data is not None:
                    chunks.append(data)
                    room -= len(data)
                elif chunks and not self._riding:
                    self._emit(chunks)
                    sender.end_packet()
                    chunks, room = [], capacity
                else:
                    break
            self._riding = False
        if state is _S.ESTABLISHED and (request := self._resets.poll(now)) is not None:
            chunks.append(request)
        if chunks:
            self._emit(chunks)
        if sender.shrunk:
            self._channels.flushed()

    def _emit(self, chunks: list[bytes], tag: int | None = None) -> None:
        local_port, remote_port = self._ports
        tag = self._handshake.peer_tag if tag is None else tag
        self._outputs.append(Packet(build_packet(local_port, remote_port, tag, chunks)))


_CAUSES = frozenset(CauseCode)
_HANDLERS: dict[int, Callable[[Association, RawChunk, float], None]] = {
    ChunkType.DATA: Association._on_data_untrusted,
    ChunkType.INIT: Association._on_init_untrusted,
    ChunkType.INIT_ACK: Association._on_init_ack_untrusted,
    ChunkType.SACK: Association._on_sack_untrusted,
    ChunkType.HEARTBEAT: Association._on_heartbeat_untrusted,
    ChunkType.HEARTBEAT_ACK: Association._on_heartbeat_ack_untrusted,
    ChunkType.ABORT: Association._on_abort_untrusted,
    ChunkType.SHUTDOWN: Association._on_shutdown_untrusted,
    ChunkType.SHUTDOWN_ACK: Association._on_shutdown_ack_untrusted,
    ChunkType.ERROR: Association._on_error_untrusted,
    ChunkType.COOKIE_ECHO: Association._on_cookie_echo_untrusted,
    ChunkType.COOKIE_ACK: Association._on_cookie_ack_untrusted,
    ChunkType.SHUTDOWN_COMPLETE: Association._on_shutdown_complete_untrusted,
    ChunkType.RE_CONFIG: Association._on_reconfig_untrusted,
    ChunkType.FORWARD_TSN: Association._on_forward_tsn_untrusted,
}

"""An SCTP association for data channels, sans I/O (RFC 9260 over DTLS as RFC 8261, 8831, 8832 have it).

This file routes; who decides:

1. Bytes → `packet` → ports and verification tag → one handler for each chunk type.
2. INIT, INIT ACK, cookies → `handshake`, then an event to the state table (`states`), whose effects are done here.
3. DATA → `inbound` → messages → `channels`; SACK → `outbound`; RE-CONFIG → `resets`.
4. After every verb `engine` packs what all of them want to send.

One path, no multihoming, no AUTH, no ECN: none of them exists over DTLS (RFC 8261 §6).
"""

from __future__ import annotations

from collections.abc import Callable

from protocol.errors import DecodeError, LocalError, RemoteError
from protocol.sctp import states
from protocol.sctp.chunks import (
    ACTION_REPORT,
    ACTION_SKIP,
    CauseCode,
    ChunkType,
    build_cause,
    parse_causes_untrusted,
    parse_data_untrusted,
    parse_forward_tsn_untrusted,
    parse_sack_untrusted,
    parse_shutdown_untrusted,
)
from protocol.sctp.dcep import Delivery
from protocol.sctp.engine import OPENING, RECEIVES, SENDS, Engine
from protocol.sctp.events import Output
from protocol.sctp.handshake import StaleCookie
from protocol.sctp.packet import (
    ParsedPacket,
    RawChunk,
    build_chunk,
    parse_packet_untrusted,
)
from protocol.sctp.parameters import ResetResponse, parse_reconfig_untrusted
from protocol.sctp.reassembly import Message
from protocol.sctp.states import AssociationState

__all__ = ["Association"]

_S = AssociationState
_ALONE = (ChunkType.INIT, ChunkType.INIT_ACK, ChunkType.SHUTDOWN_COMPLETE)  # §6.10: never bundled
_T_BIT = 1  # ABORT, SHUTDOWN COMPLETE: the tag is the receiver's view of it, reflected (§8.5.1)


class Association(Engine):
    """See the module. After each call drain `poll()`; call `handle_timeout` when `next_timeout()` has come."""

    # Commands

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
        *,
        max_retransmits: int | None = None,
        max_lifetime: float | None = None,
    ) -> int:
        """Open a channel, or adopt a negotiated one; before the association is up, too. Without `now` the OPEN goes
        out with the next call that has one: `next_timeout` says at once.

        A message is given up after `max_retransmits` retransmissions of any of its parts, or when `max_lifetime`
        seconds have passed since it was sent (RFC 8831 §6.4; at most one of the two, both directions alike, and
        nothing if the peer does not know RFC 3758). Raises LocalError, ChannelLimit, MessageTooLarge."""
        if self.state is _S.DEAD:
            raise LocalError("the association is closed")
        delivery = Delivery(ordered, max_retransmits, max_lifetime)
        number = self._channels.open(label, protocol, delivery, negotiated_id)
        self._dirty = True
        if now is not None:
            self._flush(now)
        return number

    def send(self, channel: int, data: str | bytes, now: float) -> bool:
        """False: the buffer is full (ChannelWritable follows) or the channel is closing, and nothing was taken.
        Raises UnknownChannel, MessageTooLarge."""
        if not self._channels.send(channel, data, now):
            return False
        self._flush(now)
        return True

    def buffered_amount(self, channel: int) -> int:
        """Bytes accepted and not yet sent."""
        return self._sender.queue.buffered(channel)

    @property
    def drained(self) -> bool:
        """Everything that was sent has been acknowledged."""
        return self._sender.drained

    def keep_unread(self, octets: int, room: int, now: float) -> bool:
        """Whoever gets the messages has not read so many bytes of them; they take `room` bytes of the window, which may be
        more than they are. True: something is to be sent, that there is room again."""
        if not self._receiver.keep_unread(octets, room) or self.state not in RECEIVES:
            return False
        self._flush(now)
        return True

    def close_channel(self, channel: int, now: float) -> None:
        """Close after what was sent before; ChannelClosed when the peer closed it as well. Raises UnknownChannel."""
        self._channels.close(channel)
        self._flush(now)

    def close(self, now: float) -> None:
        """SHUTDOWN: what is queued is delivered first, then AssociationClosed("shutdown")."""
        if self.state in OPENING:
            self._fail("shutdown", now, CauseCode.USER_INITIATED_ABORT)
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
        return self._next_deadline()

    def handle_timeout(self, now: float) -> None:
        self._time_out(now)
        self._flush(now)

    def receive_untrusted(self, data: bytes | memoryview, now: float) -> None:
        try:
            packet = parse_packet_untrusted(bytes(data))
            if self.state is _S.DEAD and packet.chunks[0].type != ChunkType.SHUTDOWN_ACK:
                raise DecodeError("state")
            self._check_tag_untrusted(packet)
            for chunk in packet.chunks:
                if not self._receive_chunk_untrusted(chunk, now):
                    break
        except DecodeError as error:
            self.drops[error.reason] += 1
        except RemoteError as error:
            self._fail(error.reason, now, error.code)
        if self.state in RECEIVES:
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
        if chunk.type & ACTION_REPORT and self.state in SENDS:
            whole = build_chunk(chunk.type, chunk.flags, chunk.value)[: self._capacity // 2]
            self._control.append(build_chunk(ChunkType.ERROR, 0, build_cause(CauseCode.UNRECOGNIZED_CHUNK_TYPE, whole)))
        return bool(chunk.type & ACTION_SKIP)

    def _on_data_untrusted(self, chunk: RawChunk, now: float) -> None:
        if self.state is not _S.ESTABLISHED:
            self._take_as_cookie_ack(now)
            if self.state not in RECEIVES:
                raise DecodeError("state")
        data = parse_data_untrusted(chunk)
        if messages := self._receiver.receive(data):
            self._deliver(messages)
        if data.stream >= self._config.streams:
            cause = build_cause(CauseCode.INVALID_STREAM_IDENTIFIER, data.stream.to_bytes(2, "big") + bytes(2))
            self._control.append(build_chunk(ChunkType.ERROR, 0, cause))
        if self.state is not _S.ESTABLISHED or self._resets.defers:
            self._after_data(now)

    def _on_forward_tsn_untrusted(self, chunk: RawChunk, now: float) -> None:
        if self.state not in RECEIVES:
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
        self._take_as_cookie_ack(now)
        if self.state not in SENDS and self.state is not _S.SHUTDOWN_SENT:
            raise DecodeError("state")
        if self._sender.acknowledge(parse_sack_untrusted(chunk.value), now):
            self._errors = 0

    def _on_init_untrusted(self, chunk: RawChunk, now: float) -> None:
        if self.state is _S.SHUTDOWN_ACK_SENT:  # §9.2: the peer must hear that first
            self._control.append(build_chunk(ChunkType.SHUTDOWN_ACK, 0, b""))
            return
        if self.state not in OPENING and self.state is not _S.ESTABLISHED:
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
        established = self.state not in OPENING
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
            self._sender.meet_peer(peer.window, peer.forward_tsn)
            self._receiver.start(peer.tsn)
            self._resets.start(peer.tsn)

    def _on_cookie_ack_untrusted(self, chunk: RawChunk, now: float) -> None:
        self._fire(states.CookieAcknowledged(), now)

    def _take_as_cookie_ack(self, now: float) -> None:
        # §6: "DATA chunks … in any other state SHOULD be discarded" is not followed in COOKIE-ECHOED: with our tag
        # they prove that the peer took our cookie and the COOKIE ACK was lost. Waiting for T1 costs seconds.
        if self.state is _S.COOKIE_ECHOED:
            self._fire(states.CookieAcknowledged(), now)

    def _on_heartbeat_untrusted(self, chunk: RawChunk, now: float) -> None:
        if self.state not in SENDS or len(chunk.value) > self._config.max_packet_size - 16:
            raise DecodeError("heartbeat")
        self._control.append(build_chunk(ChunkType.HEARTBEAT_ACK, 0, chunk.value))

    def _on_heartbeat_ack_untrusted(self, chunk: RawChunk, now: float) -> None:
        if (round_trip := self._path.answered(chunk.value, now)) is not None:
            self._round_trip.sample(round_trip)
            self._fit_path()
        elif not self._heartbeat.answered(chunk.value):
            raise DecodeError("heartbeat_ack")
        self._errors = 0

    def _on_abort_untrusted(self, chunk: RawChunk, now: float) -> None:
        self._reason = "aborted_by_peer"
        self._fire(states.Aborted(), now)

    def _on_error_untrusted(self, chunk: RawChunk, now: float) -> None:
        for code, _ in parse_causes_untrusted(chunk.value):
            self.drops[f"error_{CauseCode(code).name.lower() if code in _CAUSES else 'other'}"] += 1
            if code == CauseCode.STALE_COOKIE and self.state is _S.COOKIE_ECHOED:
                self._stale_cookies += 1
                if self._stale_cookies > self._config.max_stale_cookies:
                    raise RemoteError(CauseCode.STALE_COOKIE, "setup_stale_cookies")
                self._fire(states.CookieStale(), now)

    def _on_shutdown_untrusted(self, chunk: RawChunk, now: float) -> None:
        if self.state in OPENING:
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

"""One call: the state machine, the peer and the media joined. It decides; the peer routes, the engine moves bytes.

1. Built from an answered offer. The backend is asked at once, while ICE and DTLS come up.
2. Whatever happens (datagram, deadline, word of the agent, hang-up) becomes an event of the machine or goes through to
   the media; each effect of the machine has one method here.
3. Deadlines are those of the tables; `next_timeout` merges them with the peer's and the reorder buffer's.
4. When it ends, the first reason is kept: the client is told on the channel `oai-events`, then by DTLS; the agent by the
   link. The call is released once the client has acknowledged, or after `linger`.

All of it is synchronous and runs in the engine's task: a call has no task of its own.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from protocol.address import Path, format_address
from protocol.agentlink import DataMessage, MediaRecord
from protocol.codecs import Codec
from protocol.ice import IceCredentials
from protocol.peer import (
    DONE,
    AudioReceived,
    CircuitBroken,
    ConsentLate,
    ConsentRestored,
    DataChannelsClosed,
    DataParameters,
    DtlsConnected,
    PathSelected,
    PeerClosed,
    PeerEvent,
    RestartCompleted,
    SendTo,
    TransportFailed,
)
from protocol.rtp import Trip
from protocol.sctp import ChannelClosed, ChannelMessage, ChannelOpened, ChannelOverrun, ChannelWritable
from protocol.sdp import NegotiatedAudio
from service.logs import get_logger
from transceiver.backends.base import Accepted, Attachment, BackendEvent, Ended, Flushed, Lost, Refused
from transceiver.media import Uplink
from transceiver.session import tables
from transceiver.session.clocks import Clocks
from transceiver.session.conversation import Conversation
from transceiver.session.parts import SessionParts
from transceiver.session.reasons import DEADLINE_REASONS, SILENT, UNREACHABLE, CloseReason
from transceiver.session.tables import Effect, Life, Transport

if TYPE_CHECKING:
    from transceiver.routes import Route

__all__ = ["Session"]

log = get_logger()

HEALING = frozenset({Trip.RTCP_TIMEOUT.value})  # ends by itself, with the next report


class Session:
    """What a backend may know of it is the `Call` protocol."""

    __slots__ = (
        "__weakref__",
        "_backend",
        "_clocks",
        "_events",
        "_firing",
        "_host",
        "_machine",
        "_refused",
        "_started_at",
        "agreement",
        "call_id",
        "client",
        "conversation",
        "drops",
        "expires_at",
        "paths",
        "peer",
        "reason",
        "released",
        "route",
        "scheduled_at",
        "session",
        "stages",
        "ufrags",
    )

    def __init__(self, parts: SessionParts, now: float) -> None:
        self.call_id = parts.call_id
        self.ufrags = [parts.ufrag]  # of ours: one, while ICE restarts two, the newer one last
        self.peer = parts.peer
        self.session = parts.session
        self.client = parts.client
        self.expires_at = parts.expires_at
        self.agreement = parts.agreement  # signalling's: what the next offer has to fit
        self.drops: Counter[str] = (
            Counter()
        )  # its own, its media's and its channels': one, for an empty one costs bytes
        self.conversation = Conversation(parts.peer, parts.agreement.audio, self.drops)
        self.reason: CloseReason | None = None
        self.stages: dict[str, float] = {}  # name → seconds since the offer
        self.paths: list[Path] = []  # the engine's: where datagrams of this call come from
        self.scheduled_at = float("inf")  # the engine's: this call's place in its heap
        self.released = False  # the engine's: forgotten
        self.route: Route | None = None  # the engine's: the short way of its audio
        self._host = parts.host
        self._backend = parts.backend
        self._refused = False
        self._started_at = now
        self._events: list[tuple[object, CloseReason | None]] = []  # a list: an empty deque costs 0.7 KiB
        self._firing = False
        self._machine = tables.new_session_machine()
        self._clocks = Clocks(self._machine, parts.timeouts, now)
        self._open_backend(now)

    @property
    def ufrag(self) -> bytes:
        """Our ICE user fragment: the one given last."""
        return self.ufrags[-1]

    @property
    def codec(self) -> Codec | None:
        return self.conversation.codec

    @property
    def uplink(self) -> Uplink | None:
        return self.conversation.uplink

    @property
    def life(self) -> Life:
        return self._machine.state(Life)

    @property
    def transport(self) -> Transport:
        return self._machine.state(Transport)

    # What happens to it

    def receive_untrusted(self, data: bytes | memoryview, path: Path, now: float) -> None:
        """A datagram of the client; never raises but for a bug of ours."""
        self.peer.receive_untrusted(data, path, now)
        self._drain(now)

    def handle_timeout(self, now: float) -> None:
        while (expired := self._clocks.expired(now)) is not None:
            state, event = expired
            self._fire(event(), now, self._blame(state))
        if now >= self.peer.next_timeout():
            self.peer.handle_timeout(now)
        self.conversation.handle_timeout(now)
        self._drain(now)

    def next_timeout(self) -> float:
        return min(self._clocks.next_timeout(), self.peer.next_timeout(), self.conversation.next_timeout())

    def handle_backend(self, attachment: Attachment | None, event: BackendEvent, now: float) -> None:
        """A word of the agent; that of an earlier attachment is ignored."""
        if attachment is not self.conversation.attachment:
            self.drops["stale_attachment"] += 1
            return
        self._on_backend_event(event, now)
        self._drain(now)

    def settle(self, now: float) -> None:
        """Carry out what the peer has to say, after its lane said so."""
        self._drain(now)

    def pace(self, now: float, late: float = 0.0) -> int:
        """Send the agent's audio that is due, `late` seconds after the pacer's time: DONE, or SETTLE, when the call's deadlines
        may have changed."""
        conversation = self.conversation
        if now < conversation.next_pace():
            return DONE
        became = conversation.pace(now, self.route if self.reason is None else None, late)
        if became != DONE:
            if conversation.has_spoken:
                self._stage("audio_out", now)
            self._drain(now)
        return became

    def close(self, reason: CloseReason, now: float) -> None:
        self._fire(tables.CloseRequested(), now, reason)
        self._drain(now)

    def restart_ice(self, local: IceCredentials, remote: IceCredentials, now: float) -> None:
        """Media keeps to the old path until the new credentials select one. Tell the engine too: `Engine.rename`."""
        self.peer.restart_ice(local, remote, now)
        self._drain(now)

    def renegotiate(self, audio: NegotiatedAudio | None, data: DataParameters | None, now: float) -> None:
        """A further offer was answered: what of audio and data there is from now on."""
        self.conversation.redirect(audio)
        if data is None:
            self.peer.stop_data(now)
        else:
            self.peer.start_data(data, now)
        self._drain(now)

    def drain(self, now: float) -> None:
        """The process is going away; live calls may finish."""
        self._fire(tables.DrainRequested(), now, CloseReason.DRAINED)
        self._drain(now)

    def release_now(self, now: float) -> None:
        """Goodbyes were queued; wait for nothing."""
        if self.life is Life.CLOSING:
            self._fire(tables.Flushed(), now)
            self._drain(now)

    def all_drops(self) -> Counter[str]:
        """What was dropped in this call, by reason."""
        drops = self.conversation.all_drops()
        for layer in self.peer.drops_of_layers():
            drops.update(layer)
        return drops

    # The machine

    def _fire(self, event: object, now: float, reason: CloseReason | None = None) -> None:
        """Fire an event and carry out its effects; events that those cause follow in order."""
        self._events.append((event, reason))
        if self._firing:
            return
        self._firing = True
        try:
            while self._events:
                self._step(*self._events.pop(0), now)
        finally:
            self._firing = False

    def _step(self, event: object, reason: CloseReason | None, now: float) -> None:
        effects = self._machine.fire(event)
        self._clocks.update(now)
        if self.reason is None and self.life is Life.CLOSING:
            self.reason = reason or CloseReason.INTERNAL_ERROR
        attachment = self.conversation.attachment
        if attachment is not None and self._machine.state(tables.Backend) is tables.Backend.BACKOFF:
            attachment.end(CloseReason.AGENT_UNAVAILABLE.value)  # it never answered
            self.conversation.forget()
        for effect in effects:
            self._EFFECTS[effect](self, now)

    def _blame(self, state: enum.Enum) -> CloseReason | None:
        if state is Life.STARTING and self.transport is Transport.SECURE:
            return CloseReason.AGENT_REFUSED if self._refused else CloseReason.AGENT_UNAVAILABLE
        return DEADLINE_REASONS.get(state)

    # Effects

    def _start_dtls(self, now: float) -> None:
        self._stage("ice", now)
        self._host.connected(self)
        self.peer.start_dtls(now)

    def _install_keys(self, now: float) -> None:
        self._stage("dtls", now)  # the peer has put them to use already

    def _retarget(self, _: float) -> None:
        path = self.peer.ice.selected
        if path is not None:
            log.debug("path selected", call=self.call_id, client=format_address(path.remote))

    def _pause_media(self, _: float) -> None:
        log.info("consent late, media paused", call=self.call_id)
        self.conversation.flowing = False
        self.peer.pause_media()

    def _resume_media(self, _: float) -> None:
        log.info("consent is back", call=self.call_id)
        if self.life in (Life.LIVE, Life.DRAINING):
            self.conversation.flowing = True
            self.peer.resume_media()

    def _open_backend(self, now: float) -> None:
        self.conversation.attachment = self._backend.open(self)
        if self.conversation.attachment is None:
            self._fire(tables.BackendFailed(), now)

    def _start_media(self, now: float) -> None:
        self._stage("live", now)
        self.conversation.start()
        self.peer.start_media()
        milliseconds = {name: round(seconds * 1000, 1) for name, seconds in self.stages.items()}
        log.info("call live", call=self.call_id, codec=self.codec.name if self.codec else None, ms=milliseconds)

    def _announce_drain(self, now: float) -> None:
        self.conversation.channels.tell({"type": "antiphon.draining"}, now)

    def _send_goodbyes(self, now: float) -> None:
        assert self.reason is not None
        self.conversation.end(self.reason.value, now)
        if self.reason not in UNREACHABLE:
            event = {"type": "antiphon.call.ended", "reason": self.reason.value}
            self.conversation.channels.tell(event, now)

    def _release(self, now: float) -> None:
        assert self.reason is not None
        self.peer.close(now)
        self._host.release(self)
        log.info("call ended", call=self.call_id, reason=self.reason.value, seconds=round(now - self._started_at, 3))

    _EFFECTS: ClassVar[dict[object, Callable[[Session, float], None]]] = {
        Effect.START_DTLS: _start_dtls,
        Effect.INSTALL_KEYS: _install_keys,
        Effect.RETARGET: _retarget,
        Effect.PAUSE_MEDIA: _pause_media,
        Effect.RESUME_MEDIA: _resume_media,
        Effect.OPEN_BACKEND: _open_backend,
        Effect.START_MEDIA: _start_media,
        Effect.ANNOUNCE_DRAIN: _announce_drain,
        Effect.SEND_GOODBYES: _send_goodbyes,
        Effect.RELEASE: _release,
    }

    # The peer

    def _drain(self, now: float) -> None:
        """Everything the peer has to say, until it is quiet; then, when closing, see whether the client has heard all."""
        while outputs := self.peer.poll():
            for output in outputs:
                if isinstance(output, SendTo):
                    if self.reason not in SILENT:
                        self._host.send(output.data, output.path)
                elif isinstance(output, AudioReceived):
                    self.conversation.receive_audio(output.packet, now)
                    if self.conversation.has_heard:
                        self._stage("audio_in", now)
                else:
                    self._on_peer_event(output, now)
        if self.reason is not None and self.life is Life.CLOSING and self._is_said():
            self._fire(tables.Flushed(), now)
            self._drain(now)

    def _is_said(self) -> bool:
        """Whether there is nothing left to wait for: the client has acknowledged what we told it, or cannot hear us."""
        return self.reason in UNREACHABLE or self.peer.data_drained

    def _on_peer_event(self, event: PeerEvent, now: float) -> None:
        match event:
            case PathSelected() | ConsentRestored():
                self._fire(tables.IceConnected(), now)
            case RestartCompleted():
                log.info("ICE restarted", call=self.call_id)
                self._host.retire(self)
            case DtlsConnected(srtp_profile=0) if self.codec is not None:
                self._fire(tables.TransportFailed(), now, CloseReason.DTLS_FAILED)  # audio without SRTP is no audio
            case DtlsConnected():
                self._fire(tables.DtlsEstablished(), now)
                if self.peer.ice.consent_is_late:  # told during the handshake, when there was no media to pause
                    self._fire(tables.ConsentLate(), now)
            case ConsentLate():
                self._fire(tables.ConsentLate(), now)
            case PeerClosed():
                self._fire(tables.PeerClosed(), now, CloseReason.PEER_CLOSED)
            case TransportFailed():
                log.info("transport failed", call=self.call_id, reason=event.reason)
                self._fire(tables.TransportFailed(), now, self._transport_reason(event.reason))
            case CircuitBroken():
                log.warning("circuit breaker tripped, no audio is sent", call=self.call_id, reason=event.reason)
                if event.reason not in HEALING:  # a call in which nobody hears the agent is over
                    self._fire(tables.TransportFailed(), now, CloseReason.TRANSPORT_FAILED)
            case ChannelOpened():
                self._stage("channel", now)
                self.conversation.channels.opened(event, now)
            case ChannelMessage():
                self.conversation.channels.received(event, now)
            case ChannelOverrun():
                self.conversation.channels.overrun(event, now)
            case ChannelWritable():
                self.conversation.channels.writable(event, now)
            case ChannelClosed():
                self.conversation.channels.closed(event, now)
            case DataChannelsClosed():
                self.conversation.channels.all_closed(now)

    def _transport_reason(self, word: str) -> CloseReason:
        if word == CloseReason.FINGERPRINT_MISMATCH.value:
            return CloseReason.FINGERPRINT_MISMATCH
        return CloseReason.DTLS_FAILED if self.transport is Transport.HANDSHAKING else CloseReason.TRANSPORT_FAILED

    # The agent

    def _on_backend_event(self, event: BackendEvent, now: float) -> None:
        match event:
            case MediaRecord():
                self.conversation.play(event, now)
            case DataMessage():
                self.conversation.send(event, now)
            case Flushed():
                self.conversation.flush(now)
            case Accepted():
                self._on_accepted(now)
            case Refused():
                log.info("agent refused the call", call=self.call_id, reason=event.reason)
                self._refused = True
                self._lose_agent(now)
            case Lost():
                log.warning("link to the agent lost", call=self.call_id)
                self._refused = False
                self._lose_agent(now)
            case Ended():
                self.conversation.forget()
                self._fire(tables.BackendEnded(), now, CloseReason.AGENT_ENDED)

    def _on_accepted(self, now: float) -> None:
        if self._machine.state(tables.Backend) is not tables.Backend.CONNECTING:
            self.drops["accepted_twice"] += 1
            return
        self._stage("agent", now)
        self.conversation.begin(now)
        self._fire(tables.BackendReady(), now)

    def _lose_agent(self, now: float) -> None:
        self.conversation.interrupt(now)
        self._fire(tables.BackendFailed(), now)

    def _stage(self, name: str, now: float) -> None:
        self.stages.setdefault(name, now - self._started_at)

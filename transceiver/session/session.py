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

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from protocol.address import Path, format_address
from protocol.agentlink import DataMessage, MediaRecord
from protocol.codecs import Codec
from protocol.peer import (
    AudioReceived,
    ConsentLate,
    ConsentRestored,
    DataChannelsClosed,
    DtlsConnected,
    PathSelected,
    Peer,
    PeerClosed,
    PeerEvent,
    SendTo,
    TransportFailed,
)
from protocol.sctp import ChannelClosed, ChannelMessage, ChannelOpened, ChannelWritable
from protocol.sdp import NegotiatedAudio
from service.logs import get_logger
from transceiver.backends.base import Accepted, Attachment, Backend, BackendEvent, Ended, Flushed, Lost, Refused
from transceiver.config import Timeouts
from transceiver.media import Downlink, Uplink
from transceiver.session import tables
from transceiver.session.channels import Channels
from transceiver.session.clocks import Clocks
from transceiver.session.reasons import CloseReason
from transceiver.session.tables import Effect, Life, Transport

__all__ = ["Host", "Session", "SessionParts"]

log = get_logger()

# What is to blame when a state was held too long.
DEADLINE_REASONS = {
    Transport.WAITING: CloseReason.ICE_TIMEOUT,
    Transport.HANDSHAKING: CloseReason.DTLS_TIMEOUT,
    Transport.SUSPECT: CloseReason.CONSENT_LOST,
    Life.STARTING: CloseReason.SETUP_TIMEOUT,
    Life.LIVE: CloseReason.MAX_DURATION,
    Life.DRAINING: CloseReason.DRAINED,
}
# The client cannot hear us any more: no message to it. Without consent not even a datagram (RFC 7675 §5.1).
UNREACHABLE = frozenset(
    {
        CloseReason.PEER_CLOSED,
        CloseReason.ICE_TIMEOUT,
        CloseReason.DTLS_TIMEOUT,
        CloseReason.DTLS_FAILED,
        CloseReason.FINGERPRINT_MISMATCH,
        CloseReason.CONSENT_LOST,
        CloseReason.TRANSPORT_FAILED,
    }
)
SILENT = frozenset({CloseReason.ICE_TIMEOUT, CloseReason.CONSENT_LOST})


class Host(Protocol):
    """The engine, as a session sees it."""

    def send(self, data: bytes, path: Path) -> None:
        """Queue a datagram for this turn."""

    def connected(self, session: Session) -> None:
        """The call is half-open no more."""

    def release(self, session: Session) -> None:
        """Forget the call."""


@dataclass(frozen=True, slots=True)
class SessionParts:
    """What a session is put together from."""

    call_id: str
    ufrag: bytes
    peer: Peer
    audio: NegotiatedAudio | None
    session: dict[str, Any] | None
    timeouts: Timeouts
    backend: Backend
    host: Host


class Session:
    __slots__ = (
        "__weakref__",
        "_attachment",
        "_backend",
        "_channels",
        "_clocks",
        "_downlink",
        "_events",
        "_firing",
        "_host",
        "_machine",
        "_media",
        "_refused",
        "_started_at",
        "call_id",
        "codec",
        "drops",
        "paths",
        "peer",
        "reason",
        "scheduled_at",
        "session",
        "stages",
        "ufrag",
        "uplink",
    )

    def __init__(self, parts: SessionParts, now: float) -> None:
        self.call_id = parts.call_id
        self.ufrag = parts.ufrag
        self.peer = parts.peer
        self.session = parts.session
        audio = parts.audio
        self.codec: Codec | None = audio.codec if audio is not None else None
        self.uplink: Uplink | None = None
        self._downlink: Downlink | None = None
        if audio is not None and audio.direction.receives:
            self.uplink = Uplink(audio.payload_type, audio.codec.clock_rate)
        if audio is not None and audio.direction.sends:
            self._downlink = Downlink(audio.codec, first_timestamp=0)
        self.reason: CloseReason | None = None
        self.stages: dict[str, float] = {}  # name → seconds since the offer
        self.drops: Counter[str] = Counter()
        self.paths: list[Path] = []  # the engine's: where datagrams of this call come from
        self.scheduled_at = float("inf")  # the engine's: this call's place in its heap
        self._host = parts.host
        self._backend = parts.backend
        self._channels = Channels(parts.peer)
        self._attachment: Attachment | None = None
        self._refused = False
        self._media = False
        self._started_at = now
        self._events: deque[tuple[object, CloseReason | None]] = deque()
        self._firing = False
        self._machine = tables.new_session_machine()
        self._clocks = Clocks(self._machine, parts.timeouts, now)
        self._open_backend(now)

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
        if self.uplink is not None and now >= self.uplink.next_timeout():
            self.uplink.handle_timeout(now)
            self._offer_audio()
        self._drain(now)

    def next_timeout(self) -> float:
        earliest = min(self._clocks.next_timeout(), self.peer.next_timeout())
        return min(earliest, self.uplink.next_timeout()) if self.uplink is not None else earliest

    def handle_backend(self, attachment: Attachment | None, event: BackendEvent, now: float) -> None:
        """A word of the agent; that of an earlier attachment is ignored."""
        if attachment is not self._attachment:
            self.drops["stale_attachment"] += 1
            return
        self._BACKEND_HANDLERS[type(event)](self, event, now)
        self._drain(now)

    def pace(self, now: float) -> None:
        """Send the agent's audio that is due."""
        downlink = self._downlink
        if downlink is None or not self._media:
            return
        for payload, timestamp, marker in downlink.take_due(now):
            if not self.peer.send_audio(payload, timestamp, now, marker):
                self.drops["unsent"] += 1
            elif "audio_out" not in self.stages:
                self._stage("audio_out", now)
        self._report_played()
        self._drain(now)

    @property
    def is_playing(self) -> bool:
        """Whether the pacer must look after this call."""
        return self._downlink is not None and self._downlink.playing

    @property
    def life(self) -> Life:
        return self._machine.state(Life)

    @property
    def transport(self) -> Transport:
        return self._machine.state(Transport)

    def close(self, reason: CloseReason, now: float) -> None:
        self._fire(tables.CloseRequested(), now, reason)
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

    def all_drops(self, now: float) -> Counter[str]:
        """What was dropped in this call, by reason."""
        drops = self.peer.statistics(now).drops + self.drops + self._channels.drops
        if self.uplink is not None:
            drops.update({f"uplink_{reason}": count for reason, count in self.uplink.drops.items()})
        if self._downlink is not None:
            drops.update({f"downlink_{reason}": count for reason, count in self._downlink.drops.items()})
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
                self._step(*self._events.popleft(), now)
        finally:
            self._firing = False

    def _step(self, event: object, reason: CloseReason | None, now: float) -> None:
        effects = self._machine.fire(event)
        self._clocks.update(now)
        if self.reason is None and self.life is Life.CLOSING:
            self.reason = reason or CloseReason.INTERNAL_ERROR
        if self._attachment is not None and self._machine.state(tables.Backend) is tables.Backend.BACKOFF:
            self._attachment.end(CloseReason.AGENT_UNAVAILABLE.value)  # it never answered
            self._forget_attachment()
        for effect in effects:
            self._EFFECTS[effect](self, now)

    def _blame(self, state: object) -> CloseReason | None:
        if state is Life.STARTING and self.transport is Transport.SECURE:
            return CloseReason.AGENT_REFUSED if self._refused else CloseReason.AGENT_UNAVAILABLE
        return DEADLINE_REASONS.get(state)  # type: ignore[call-overload, no-any-return]

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
        self._media = False
        self.peer.pause_media()

    def _resume_media(self, _: float) -> None:
        log.info("consent is back", call=self.call_id)
        self._media = self.life in (Life.LIVE, Life.DRAINING)
        if self._media:
            self.peer.resume_media()

    def _open_backend(self, now: float) -> None:
        self._attachment = self._backend.open(self)
        if self._attachment is None:
            self._fire(tables.BackendFailed(), now)

    def _start_media(self, now: float) -> None:
        self._stage("live", now)
        self._media = True
        self.peer.start_media()
        milliseconds = {name: round(seconds * 1000, 1) for name, seconds in self.stages.items()}
        log.info("call live", call=self.call_id, codec=self.codec.name if self.codec else None, ms=milliseconds)

    def _announce_drain(self, now: float) -> None:
        self._channels.tell({"type": "antiphon.draining"}, now)

    def _send_goodbyes(self, now: float) -> None:
        assert self.reason is not None
        self._media = False
        if self._downlink is not None:
            self._downlink.flush(now)
            self._report_played()
        if self._attachment is not None:
            self._attachment.end(self.reason.value)
            self._forget_attachment()
        self._channels.detach()
        if self.reason not in UNREACHABLE:
            self._channels.tell({"type": "antiphon.call.ended", "reason": self.reason.value}, now)

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
                    self._receive_audio(output, now)
                else:
                    self._on_peer_event(output, now)
        if self.life is Life.CLOSING and (self.reason in UNREACHABLE or self.peer.data_drained):
            self._fire(tables.Flushed(), now)
            self._drain(now)

    def _receive_audio(self, event: AudioReceived, now: float) -> None:
        if self.uplink is None or not self._media:
            self.drops["audio_early"] += 1
            return
        if "audio_in" not in self.stages:
            self._stage("audio_in", now)
        self.uplink.push(event.packet, now)
        self._offer_audio()

    def _on_peer_event(self, event: PeerEvent, now: float) -> None:
        match event:
            case PathSelected() | ConsentRestored():
                self._fire(tables.IceConnected(), now)
            case DtlsConnected(srtp_profile=0) if self.codec is not None:
                self._fire(tables.TransportFailed(), now, CloseReason.DTLS_FAILED)  # audio without SRTP is no audio
            case DtlsConnected():
                self._fire(tables.DtlsEstablished(), now)
            case ConsentLate():
                self._fire(tables.ConsentLate(), now)
            case PeerClosed():
                self._fire(tables.PeerClosed(), now, CloseReason.PEER_CLOSED)
            case TransportFailed():
                log.info("transport failed", call=self.call_id, reason=event.reason)
                self._fire(tables.TransportFailed(), now, self._transport_reason(event.reason))
            case ChannelOpened():
                self._stage("channel", now)
                self._channels.opened(event)
            case ChannelMessage():
                self._channels.received(event)
            case ChannelWritable():
                self._channels.writable(event, now)
            case ChannelClosed():
                self._channels.closed(event)
            case DataChannelsClosed():
                self._channels.all_closed()

    def _transport_reason(self, word: str) -> CloseReason:
        if word == CloseReason.FINGERPRINT_MISMATCH.value:
            return CloseReason.FINGERPRINT_MISMATCH
        return CloseReason.DTLS_FAILED if self.transport is Transport.HANDSHAKING else CloseReason.TRANSPORT_FAILED

    # The agent

    def _on_accepted(self, _: BackendEvent, now: float) -> None:
        if self._machine.state(tables.Backend) is not tables.Backend.CONNECTING:
            self.drops["accepted_twice"] += 1
            return
        self._stage("agent", now)
        attachment = self._attachment
        assert attachment is not None
        self._channels.attach(attachment)
        self._fire(tables.BackendReady(), now)

    def _on_refused(self, event: BackendEvent, now: float) -> None:
        assert isinstance(event, Refused)
        log.info("agent refused the call", call=self.call_id, reason=event.reason)
        self._refused = True
        self._lose_backend(now)

    def _on_lost(self, _: BackendEvent, now: float) -> None:
        log.warning("link to the agent lost", call=self.call_id)
        self._refused = False
        self._lose_backend(now)

    def _lose_backend(self, now: float) -> None:
        self._forget_attachment()
        if self._downlink is not None:  # half a sentence of an agent that is gone helps nobody
            self._downlink.flush(now)
            self._downlink.take_report()
        self._fire(tables.BackendFailed(), now)

    def _on_ended(self, event: BackendEvent, now: float) -> None:
        assert isinstance(event, Ended)
        self._forget_attachment()
        self._fire(tables.BackendEnded(), now, CloseReason.AGENT_ENDED)

    def _on_flush(self, _: BackendEvent, now: float) -> None:
        if self._downlink is not None:
            self._downlink.flush(now)
            self._report_played()

    def _on_agent_audio(self, event: BackendEvent, now: float) -> None:
        assert isinstance(event, MediaRecord)
        if self._downlink is None or self.life is Life.STARTING:
            self.drops["agent_audio_early"] += 1
            return
        self._downlink.push(event.rtp_time, event.payload, now)

    def _on_agent_data(self, event: BackendEvent, now: float) -> None:
        assert isinstance(event, DataMessage)
        self._channels.send(event.channel, event.data, now)

    _BACKEND_HANDLERS: ClassVar[dict[type, Callable[[Session, BackendEvent, float], None]]] = {
        Accepted: _on_accepted,
        Refused: _on_refused,
        Lost: _on_lost,
        Ended: _on_ended,
        Flushed: _on_flush,
        MediaRecord: _on_agent_audio,
        DataMessage: _on_agent_data,
    }

    def _forget_attachment(self) -> None:
        self._attachment = None
        self._channels.detach()
        if self.uplink is not None:
            self.uplink.clear()

    def _offer_audio(self) -> None:
        if self._attachment is not None and self.uplink is not None and self.uplink.waiting:
            self._attachment.audio_waits()

    def _report_played(self) -> None:
        if self._downlink is not None and (report := self._downlink.take_report()) and self._attachment is not None:
            self._attachment.played(report)

    def _stage(self, name: str, now: float) -> None:
        self.stages.setdefault(name, now - self._started_at)

"""All calls of this process: who may have one, how it is put together, what is left of it afterwards.

An offer becomes a call in one synchronous step, so that its first check finds it even if it overtakes the answer:

1. No new calls while draining, or at the limit (503).
2. The offer is read and answered (400 with the reason of the refusal; 422 if nothing is wrong with it but our abilities).
3. The ufrag of the answer is a route token that names us; the ICE password is derived from it.
4. The cores are joined into a peer, the peer into a session, the session is given to the engine.

A further offer of a call is answered in the light of what was agreed before, and carried out in the engine's next turn.
"""

from __future__ import annotations

import base64
import os
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime

import trio

from protocol import dtls
from protocol.address import TransportAddress
from protocol.agentlink import CallClient
from protocol.ice import Candidate, IceCredentials, IceLite, IceLiteConfig
from protocol.peer import AudioParameters, DataParameters, Peer, PeerConfig
from protocol.routing import KeyRing
from protocol.rtp import ntp_from_unix
from protocol.sdp import (
    Agreement,
    Answer,
    Capabilities,
    OfferRefused,
    answer,
    answer_again,
    parse_fragment_untrusted,
    parse_untrusted,
    read_offer,
    write_fragment,
)
from protocol.srtp import SERVER_PREFERENCE, library_named
from protocol.wire import Entropy
from service.logs import get_logger
from transceiver.backends.base import Backend
from transceiver.config import TransceiverConfig
from transceiver.controlling import attach_controller
from transceiver.engine import Engine
from transceiver.offers import data_parameters, refusal
from transceiver.session import CloseReason, Controller, Life, Session, SessionParts
from transceiver.signalling import (
    CallRequest,
    CreatedCall,
    Permit,
    SignallingError,
    TaggedAnswer,
    Usage,
    check_if_match,
)

__all__ = ["Registry", "entity_tag"]

log = get_logger()

# Implementation constants
RETRY_AFTER_LIMIT = 5  # seconds: a call may end at any time
IDENTITY_LIFETIME = 86_400.0  # seconds; calls that began before keep theirs
RETRY_AFTER_DRAIN = 1  # another process answers the next attempt, or this one's successor


class Registry:
    """`Calls` of signalling, and what drain, shutdown and metrics need to know."""

    def __init__(
        self,
        config: TransceiverConfig,
        *,
        engine: Engine,
        backend: Backend,
        keys: KeyRing,
        identity: dtls.Identity,
        address: TransportAddress,
        candidates: tuple[Candidate, ...],
        clock: Callable[[], float] = trio.current_time,
        wall_time: Callable[[], float] = time.time,
        entropy: Entropy = os.urandom,
        worker: int | None = None,
        on_count: Callable[[int], None] = lambda _: None,
        usage: Usage | None = None,
    ) -> None:
        """`worker` is our number, if there are several of us; `on_count` is told how many calls there are, each time; `usage`
        has the limits of API keys."""
        self.draining = False
        self.sessions: dict[str, Session] = {}
        self.sockets = 0  # sessions by WebSocket
        self.half_open: OrderedDict[Session, None] = OrderedDict()  # oldest first
        self.created = 0
        self.refused: Counter[str] = Counter()  # offers, by code
        self.ended: Counter[str] = Counter()  # calls, by reason
        self.drops: Counter[str] = Counter()  # of calls that ended, by what was dropped
        self.repairs: Counter[str] = Counter()  # of calls that ended: what became of lost audio, and feedback
        self._config = config
        self._engine = engine
        self._backend = backend
        self._keys = keys
        self._identity = identity
        self._fingerprint = identity.fingerprint()  # one for all calls
        self._address = address
        self._candidates = candidates
        self._clock = clock
        self._wall_time = wall_time
        self._entropy = entropy
        self._worker = worker
        self._on_count = on_count
        self._usage = usage or Usage(clock)
        self._identity_until: float | None = None  # its life begins with the first offer: here may be no loop yet
        self._incarnation = int.from_bytes(entropy(2), "big")
        self._ice_config = IceLiteConfig(consent_late=config.timeouts.consent_late)
        self._peer_config = PeerConfig(srtp=library_named(config.srtp))
        self._empty = trio.Event()
        engine.on_connected = self._on_connected
        engine.on_release = self._on_release

    # Calls

    def create(self, request: CallRequest) -> CreatedCall:
        """Raises SignallingError."""
        try:
            return self._create(request)
        except SignallingError as error:
            self.refused[error.code] += 1
            raise

    def renegotiate(self, call_id: str, offer: bytes, if_match: str | None = None) -> TaggedAnswer | None:
        """The answer to a further offer; None if there is no such call. Raises SignallingError: then nothing has changed."""
        session = self.sessions.get(call_id)
        if session is None or session.life in (Life.CLOSING, Life.CLOSED):
            return None
        if if_match is not None:  # nobody needs to send it, who does is taken at his word (RFC 9110 §13.1.1)
            check_if_match(if_match, entity_tag(session))
        fresh = self._credentials()
        try:
            answered, agreement = answer_again(read_offer(parse_untrusted(offer)), session.agreement, fresh)
        except OfferRefused as error:
            self.refused[error.code] += 1
            raise refusal(error) from None
        if agreement.remote_ice != session.agreement.remote_ice:
            self.restart_ice(session, agreement.remote_ice, fresh)
        session.agreement = agreement
        data = data_parameters(answered.data)
        self._engine.command(session, Session.renegotiate, answered.audio, data)
        direction = answered.audio.direction.value if answered.audio is not None else None
        log.info("call renegotiated", call=call_id, audio=direction, data=data is not None)
        return TaggedAnswer(answered.sdp, entity_tag(session))

    def update_ice(self, call_id: str, if_match: str | None, fragment: bytes) -> TaggedAnswer | None:
        """RFC 9725 §4.3. Trickled candidates need no action: we know a client by its checks (RFC 8445 §2.5)."""
        session = self.sessions.get(call_id)
        if session is None or session.life in (Life.CLOSING, Life.CLOSED):
            raise SignallingError(404, "call_not_found", "There is no such call.", param="call_id")
        check_if_match(if_match, entity_tag(session))
        try:
            asked = parse_fragment_untrusted(fragment)
        except OfferRefused as error:
            raise SignallingError(400, error.code, error.message, param=error.param) from None
        known = session.agreement.remote_ice
        if asked.ice is None or asked.ice == known:
            return None
        if asked.ice.ufrag == known.ufrag or asked.ice.pwd == known.pwd:  # RFC 8839 §4.4.1.1.1
            message = "A restart changes both a=ice-ufrag and a=ice-pwd."
            raise SignallingError(400, "invalid_ice_restart", message, param="a=ice-ufrag")
        local = self.restart_ice(session, asked.ice)
        return TaggedAnswer(write_fragment(asked, local, self._candidates), entity_tag(session))

    def restart_ice(
        self, session: Session, remote: IceCredentials, local: IceCredentials | None = None
    ) -> IceCredentials:
        """The client has new ICE credentials: new ones of ours, good at once. Nothing else of the call changes.

        The call must not be closing. The caller writes the answer: an sdpfrag, or a whole description.
        """
        local = local or self._credentials()
        session.agreement = session.agreement.restarted(local, remote)
        session.restart_ice(local, remote, self._clock())
        self._engine.rename(session, local.ufrag.encode())
        log.info("ICE restart", call=session.call_id)
        return local

    def hang_up(self, call_id: str) -> bool:
        session = self.sessions.get(call_id)
        if session is None:
            return False
        self._engine.command(session, Session.close, CloseReason.HANGUP)
        return True

    def control(self, call_id: str, permit: Permit) -> Controller:
        """Raises SignallingError."""
        return attach_controller(self.sessions.get(call_id), permit)

    def count_socket(self, by: int) -> None:
        """A session by WebSocket begins (1), or ends (-1)."""
        self.sockets += by
        self._note_lines()

    @property
    def lines(self) -> int:
        return len(self.sessions) + self.sockets

    def info(self) -> dict[str, object]:
        return {
            "name": "antiphon",
            "agent": self._backend.name,
            "models": list(self._backend.models),
            "calls": self.lines,
            "max_calls": self._config.max_sessions,
            "draining": self.draining,
            "codecs": [codec.name for codec in self._backend.codecs],
        }

    # The end

    def drain(self) -> None:
        """No new calls; those that are live may finish."""
        if self.draining:
            return
        self.draining = True
        for session in self.sessions.values():
            self._engine.command(session, Session.drain)
        self._note_lines()

    def shut_down(self) -> None:
        """Goodbyes to all, now."""
        self.draining = True
        for session in self.sessions.values():
            self._engine.command(session, Session.close, CloseReason.SHUTDOWN)
            self._engine.command(session, Session.release_now)
        self._engine.flush(self._clock())
        self._note_lines()

    async def wait_empty(self) -> None:
        """Until the last call has ended, once draining."""
        await self._empty.wait()

    # From offer to session

    def check_room(self, permit: Permit) -> None:
        """Raises SignallingError if there may be no further call."""
        if self.draining:
            raise SignallingError(503, "draining", "This server is going away.", retry_after=RETRY_AFTER_DRAIN)
        if self.lines >= self._config.max_sessions:
            raise SignallingError(503, "session_limit", "All lines are busy.", retry_after=RETRY_AFTER_LIMIT)
        self._usage.check(permit)

    def _create(self, request: CallRequest) -> CreatedCall:
        self.check_room(request.permit)
        self._renew_identity()
        entropy = self._entropy
        capabilities = Capabilities(
            ice=self._credentials(),
            fingerprint=self._fingerprint,
            session_id=int.from_bytes(entropy(8), "big") >> 2,
            ssrc=int.from_bytes(entropy(4), "big") or 1,
            cname=entropy(8).hex(),
            candidates=self._candidates,
            codecs=self._backend.codecs,
            setup=self._config.setup,
            nack=self._config.nack,
            red=self._config.red,
            transport_cc=self._config.transport_cc,
            tls_id=base64.urlsafe_b64encode(entropy(18)).decode(),
        )
        try:
            answered = answer(read_offer(parse_untrusted(request.sdp)), capabilities)
        except OfferRefused as error:
            raise refusal(error) from None
        data = data_parameters(answered.data, request.channel)
        permit = request.permit
        session = Session(
            SessionParts(
                call_id=self._call_id(),
                ufrag=capabilities.ice.ufrag.encode(),
                peer=self._peer(capabilities, answered, data),
                agreement=Agreement.reached(capabilities, answered),
                session=request.session,
                client=CallClient(permit.key, permit.safety_identifier)
                if permit.key or permit.safety_identifier
                else None,
                expires_at=int(self._wall_time() + self._config.timeouts.max_session),
                timeouts=self._config.timeouts,
                backend=self._backend,
                host=self._engine,
            ),
            self._clock(),
        )
        self._admit(session)
        self._usage.began(permit)
        return CreatedCall(session.call_id, answered.sdp, entity_tag(session))

    def _call_id(self) -> str:
        """Not to be guessed: who knows it may end the call. Its first byte says which worker has the call."""
        digits = self._entropy(12).hex()
        return f"rtc_{digits}" if self._worker is None else f"rtc_{self._worker:02x}{digits[2:]}"

    def _renew_identity(self) -> None:
        now = self._clock()
        if self._identity_until is None:
            self._identity_until = now + IDENTITY_LIFETIME
        elif now >= self._identity_until:
            today = datetime.fromtimestamp(self._wall_time(), UTC)
            self._identity, self._identity_until = dtls.Identity.generate(today), now + IDENTITY_LIFETIME
            self._fingerprint = self._identity.fingerprint()

    def _credentials(self) -> IceCredentials:
        ufrag = self._keys.seal(
            self._address, incarnation=self._incarnation, wall_time=self._wall_time(), entropy=self._entropy
        )
        return IceCredentials(ufrag, self._keys.derive_password(ufrag))

    def _peer(self, ours: Capabilities, answered: Answer, data: DataParameters | None) -> Peer:
        audio = answered.audio
        return Peer(
            ice=IceLite(ours.ice, answered.remote_ice, entropy=self._entropy, config=self._ice_config),
            dtls=dtls.DtlsEndpoint(
                dtls.Role(answered.role),
                self._identity,
                peer_fingerprints=answered.remote_fingerprints,
                srtp_profiles=SERVER_PREFERENCE if audio is not None else (),
                entropy=self._entropy,
            ),
            audio=AudioParameters(
                payload_type=audio.payload_type,
                clock_rate=audio.codec.clock_rate,
                ssrc=ours.ssrc,
                cname=ours.cname,
                telephone_event_payload_type=audio.telephone_event_payload_type,
                ntp_epoch=ntp_from_unix(self._wall_time() - self._clock()),
                reduced_size=audio.rtcp_rsize,
                transport_cc_id=audio.transport_cc_id,
                request=self._config.nack,
                resend=audio.nack,
            )
            if audio is not None
            else None,
            data=data,
            entropy=self._entropy,
            config=self._peer_config,
        )

    def _admit(self, session: Session) -> None:
        if len(self.half_open) >= self._config.max_half_open:
            oldest = next(iter(self.half_open))
            del self.half_open[oldest]
            self._engine.command(oldest, Session.close, CloseReason.EVICTED)
        self.sessions[session.call_id] = session
        self.half_open[session] = None
        self._on_count(self.lines)
        self.created += 1
        self._engine.add(session)
        codec, key = session.codec.name if session.codec else None, session.client.key if session.client else ""
        log.info("call offered", call=session.call_id, codec=codec, key=key)

    def all_drops(self) -> Counter[str]:
        """Of calls that ended and of those that are under way."""
        drops = self.drops.copy()
        for session in self.sessions.values():
            drops.update(session.all_drops())
        return drops

    # What the engine tells

    def _on_connected(self, session: Session) -> None:
        self.half_open.pop(session, None)

    def _on_release(self, session: Session) -> None:
        self.half_open.pop(session, None)
        if self.sessions.pop(session.call_id, None) is None:
            return
        self._usage.ended(session.client.key if session.client is not None else "")
        reason = session.reason or CloseReason.INTERNAL_ERROR
        self.ended[reason.value] += 1
        statistics = session.peer.statistics(self._clock())
        self.drops.update(session.all_drops())
        self.repairs.update(statistics.rtcp)
        if session.uplink is not None:
            self.repairs.update(session.uplink.counters)
        if session.conversation.controllers is not None:
            session.conversation.controllers.close(reason.value)
        self._note_lines()

    def _note_lines(self) -> None:
        if not self.draining:
            self._on_count(self.lines)
        elif not self.lines:
            self._empty.set()


def entity_tag(session: Session) -> str:
    """Of its ICE session (RFC 9725 §4.3.1): our ufrag names it, and changes with it."""
    return f'"{session.ufrag.decode()}"'

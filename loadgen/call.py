"""One call as its caller lives it, on the protocol cores alone: times are arguments, datagrams come and go as bytes.

1. `offer` goes to signalling; `answered` takes what came back and begins to check every candidate in it.
2. The first path that works carries DTLS (we are the client); DTLS brings the SRTP keys and the data channel.
3. From then on `tick` sends an audio frame every 20 ms and now and then a message, and what returns is tallied.
4. The call is ready when a frame has come back and the channel is open. It is over when either side has ended it, or when
   it failed: `failure` keeps the first reason.
"""

from __future__ import annotations

import math
from datetime import datetime

from loadgen.distribution import Histogram
from loadgen.frames import PLAIN, PROTECTED
from loadgen.stages import ECHO_STAGES
from loadgen.tally import AudioTally, DataTally
from loadgen.words import FAREWELL, METER_ANSWER, METER_QUESTION, read_farewell_untrusted, read_slots_untrusted
from protocol import dtls
from protocol.address import Path, TransportAddress
from protocol.codecs import OPUS, Codec
from protocol.errors import DecodeError, LocalError
from protocol.ice import ConsentLate, ConsentRestored, IceCredentials, IceFull, IceFullConfig, PathSelected, SendTo
from protocol.peer import (
    LEFT,
    SETTLE,
    AudioParameters,
    AudioReceived,
    DataChannelsClosed,
    DataParameters,
    DtlsConnected,
    MediaLane,
    Peer,
    PeerClosed,
    PeerEvent,
    TransportFailed,
)
from protocol.sctp import ChannelClosed, ChannelMessage, ChannelOpened
from protocol.sdp import Capabilities, Negotiated, create_offer, parse_untrusted, read_answer
from protocol.srtp import SERVER_PREFERENCE, Arena
from protocol.wire import Entropy

__all__ = ["Call", "CallFigures"]

# Specification constants
EVENTS_LABEL = "oai-events"


class CallFigures:
    """What all calls of a run measure together."""

    def __init__(self, run: bytes, *, fec: bool = True, message_seconds: float = 1.0) -> None:
        self.run = run
        self.message_seconds = message_seconds  # from one data message of a call to the next
        self.speech = PROTECTED if fec else PLAIN
        self.frame_round_trips = Histogram()
        self.message_round_trips = Histogram()


class Call:
    """Drain `take_datagrams` after whatever changes it."""

    stages: tuple[str, ...] = ECHO_STAGES
    """It is ready when it has reached them all."""

    def __init__(
        self,
        number: int,
        figures: CallFigures,
        *,
        ice: IceFullConfig,
        now: float,
        now_wall: datetime,
        entropy: Entropy,
        identity: dtls.Identity | None = None,
        codecs: tuple[Codec, ...] = (OPUS,),
    ) -> None:
        self.number = number
        self.audio = AudioTally(figures.run, number, figures.frame_round_trips, figures.speech)
        self.data = DataTally(number, figures.message_round_trips)
        self.reached = {"start": now}  # stage → when
        self.failure: str | None = None
        self.farewell: str | None = None  # the reason the other side gave for the end
        self.srtp_profile: int | None = None
        self.cipher_suite: str | None = None
        self.slots: dict[str, int] | None = None  # what the agent says of our audio
        self.talking = False
        self.ended = False  # by the other side
        self.hung_up = False
        self._identity = identity or dtls.Identity.generate(now_wall)
        self._entropy = entropy
        self._ice_config = ice
        self._capabilities = Capabilities(
            ice=IceCredentials.generate(entropy),
            fingerprint=self._identity.fingerprint(),
            session_id=int.from_bytes(entropy(7), "big"),
            ssrc=int.from_bytes(entropy(4), "big"),
            cname=entropy(8).hex(),
            ice_lite=False,
            codecs=codecs,
            red="accept",  # sent when the answer prefers it, as Chromium does
            telephone_event=False,
            nack=True,
        )
        self._peer: Peer | None = None
        self._lane: MediaLane | None = None
        self._payload_type = 0
        self._frame_samples = 0
        self._candidates = 0
        self._channel: int | None = None
        self._message_at = math.inf
        self._message_seconds = figures.message_seconds
        self._datagrams: list[tuple[bytes, TransportAddress]] = []

    # Signalling

    def offer(self) -> str:
        # No candidates of ours: the server is ICE-lite and learns our address from our checks (RFC 8445 §2.5).
        return create_offer(self._capabilities)

    def answered(self, body: bytes, now: float) -> None:
        """The answer arrived. One that we cannot use is the call's failure."""
        try:
            negotiated = read_answer(parse_untrusted(body), self._capabilities)
        except DecodeError as error:
            self.fail(f"answer_{error.reason}")
            return
        if negotiated.audio is None or negotiated.data is None:
            self.fail("answer_without_audio" if negotiated.audio is None else "answer_without_data")
            return
        self._reach("signalling", now)
        self._peer = self._new_peer(negotiated)
        ice = self._peer.ice
        assert isinstance(ice, IceFull)
        self._candidates = len(negotiated.remote_candidates)
        for candidate in negotiated.remote_candidates:
            ice.add_remote_candidate(candidate)
        ice.start(now)
        self._peer.handle_timeout(now)
        self._drain(now)

    def _new_peer(self, negotiated: Negotiated) -> Peer:
        audio, data = negotiated.audio, negotiated.data
        assert audio is not None
        assert data is not None
        self._payload_type, self._frame_samples = audio.payload_type, audio.codec.frame_samples
        role = dtls.Role.CLIENT if negotiated.role == "client" else dtls.Role.SERVER
        return Peer(
            ice=IceFull(
                self._capabilities.ice,
                negotiated.remote_ice,
                controlling=True,
                entropy=self._entropy,
                config=self._ice_config,
            ),
            dtls=dtls.DtlsEndpoint(
                role,
                self._identity,
                peer_fingerprints=negotiated.remote_fingerprints,
                srtp_profiles=SERVER_PREFERENCE,
                entropy=self._entropy,
            ),
            audio=AudioParameters(
                audio.payload_type,
                audio.codec.clock_rate,
                self._capabilities.ssrc,
                self._capabilities.cname,
                reduced_size=audio.rtcp_rsize,
                resend=True,  # whether agreed or not, as both browsers do
                send_red_as=audio.red_payload_type if audio.red_first else None,
            ),
            data=DataParameters(data.remote_sctp_port, data.remote_max_message_size, data.local_sctp_port),
            entropy=self._entropy,
        )

    # The driver's verbs

    def receive_untrusted(self, data: bytes | memoryview, source: TransportAddress, now: float) -> None:
        if self._peer is not None:
            self._peer.receive_untrusted(data, Path(b"", source), now)
            self._drain(now)

    def hear_untrusted(self, arena: Arena, length: int, source: TransportAddress, now: float) -> int:
        """A datagram at the beginning of the arena, by the media lane: LEFT for `receive_untrusted`, which nothing has
        touched; DONE; or SETTLE, when the call has something to say or its deadlines may have moved."""
        lane = self._lane
        if lane is None or source != lane.path.remote:
            return LEFT
        outcome = lane.receive_untrusted(arena, 0, length, now)
        if outcome == SETTLE:
            self._drain(now)
        return outcome

    def handle_timeout(self, now: float) -> None:
        if self._peer is not None:
            self._peer.handle_timeout(now)
            self._drain(now)

    def next_timeout(self) -> float:
        return math.inf if self._peer is None else self._peer.next_timeout()

    def speak(self, arena: Arena, index: int, lateness: float, now: float) -> int:
        """`tick` by the media lane: the length of a datagram at the beginning of the arena, for `remote`. 0: nothing has
        happened, `tick` is to do it; negative: this and more, the call has something to say."""
        lane = self._lane
        if lane is None or not self.talking or now >= self._message_at:
            return 0
        frame = self.audio.next_frame(now)
        length = lane.send(arena, 0, frame, index * self._frame_samples & 0xFFFFFFFF, False, now)
        if length:
            self.audio.count_sent(lateness)
            if length < 0:
                self._drain(now)
        return length

    @property
    def remote(self) -> TransportAddress:
        """Where `speak` sends."""
        assert self._lane is not None
        return self._lane.path.remote

    @property
    def only_remote(self) -> TransportAddress | None:
        """Where all datagrams go, as long as the call lasts; None: there may be more such places, or it is not known yet."""
        return self._lane.path.remote if self._lane is not None and self._candidates == 1 else None

    def tick(self, index: int, lateness: float, now: float) -> bool:
        """The `index`th 20 ms of the run: a frame, and a message if one is due; `lateness` seconds after its time.
        Whether more than a frame happened, so that deadlines may have moved."""
        if not self.talking or self._peer is None:
            return True
        if self._peer.send_audio(self.audio.next_frame(now), index * self._frame_samples & 0xFFFFFFFF, now):
            self.audio.count_sent(lateness)
        else:
            self.audio.held += 1
        sends_message = now >= self._message_at and self._channel is not None
        if sends_message and self._channel is not None:
            self._message_at += self._message_seconds
            self._send_message(self._peer, self._channel, now)
        self._drain(now)
        if (self._lane is None or not self._lane.is_open) and self._peer is not None:
            self._lane = self._peer.lane(self._deliver)
        return sends_message or not self.talking

    def skip(self, ticks: int) -> None:
        """So many frames were never sent: the generator is far behind."""
        if self.talking:
            self.audio.skipped += ticks

    def take_datagrams(self) -> list[tuple[bytes, TransportAddress]]:
        datagrams = self._datagrams
        if datagrams:
            self._datagrams = []
        return datagrams

    # What the scenario asks and says

    @property
    def is_ready(self) -> bool:
        return len(self.reached) == len(self.stages)

    @property
    def is_over(self) -> bool:
        return self.failure is not None or self.ended

    @property
    def is_answered(self) -> bool:
        """It talks no more, and everything that was sent has come back."""
        return not self.talking and self.audio.missing == 0 and not self.data.pending

    @property
    def missing_stage(self) -> str | None:
        return next((stage for stage in self.stages if stage not in self.reached), None)

    def stop_talking(self, now: float) -> None:
        if self.talking:
            self.talking = False
            self.audio.stop(now)

    def ask_slots(self, now: float) -> None:
        """Of an agent that meters. `slots` is the answer, if one comes."""
        if self._peer is not None and self._channel is not None:
            try:
                self._peer.send_message(self._channel, METER_QUESTION, now)
            except LocalError:  # the channel is closing
                return
            self._drain(now)

    def fail(self, reason: str) -> None:
        """The first reason stands."""
        if self.failure is None:
            self.failure = reason

    def close(self, now: float) -> None:
        """Goodbyes, if the other side has not said its own; silent from then on."""
        self.stop_talking(now)
        if self._peer is not None:
            self._peer.close(now)
            self._drain(now)
            self._peer = self._lane = None

    # What the peer tells

    def _drain(self, now: float) -> None:
        peer = self._peer
        while peer is not None and (outputs := peer.poll()):
            for output in outputs:
                if isinstance(output, SendTo):
                    self._datagrams.append((output.data, output.path.remote))
                elif isinstance(output, AudioReceived):
                    packet = output.packet
                    second, payload = packet.payload_type, packet.payload
                    self._deliver(second, packet.ssrc, packet.sequence, packet.timestamp, payload, now)
                else:
                    self._on_event(peer, output, now)

    def _deliver(self, second: int, _ssrc: int, _sequence: int, _timestamp: int, payload: bytes, now: float) -> bool:
        """A frame; `second` is that byte of its RTP header. Always taken."""
        if second & 0x7F != self._payload_type:
            self.audio.corrupt += 1
            return True
        self.audio.receive_untrusted(payload, now)
        if "audio" not in self.reached and self.audio.received:
            self._reach("audio", now)
        return True

    def _on_event(self, peer: Peer, event: PeerEvent, now: float) -> None:
        match event:
            case PathSelected():
                self._reach("ice", now)
                peer.start_dtls(now)
            case DtlsConnected(srtp_profile=0):
                self._break("no_srtp_profile", now)
            case DtlsConnected():
                self._reach("dtls", now)
                self.srtp_profile, self.cipher_suite = event.srtp_profile, event.cipher_suite
                peer.start_media()
                self.talking = True
                self._open_channel(peer, now)
            case ChannelOpened() if event.channel == self._channel:
                self._reach("channel", now)
                self._channel_opened(now)
            case ChannelMessage():
                self._receive_message(event.data, now)
            case ConsentLate():
                peer.pause_media()
            case ConsentRestored():
                peer.resume_media()
            case TransportFailed():
                self._break(event.reason, now)
            case PeerClosed():
                self._break("ended_by_server", now)
                self.ended = True
            case ChannelClosed() if event.channel != self._channel:
                pass
            case DataChannelsClosed() | ChannelClosed():
                self._channel = None
                self._break("channel_lost", now)

    def _open_channel(self, peer: Peer, now: float) -> None:
        try:
            self._channel = peer.open_channel(EVENTS_LABEL, now)
        except LocalError:  # by its answer the server takes no message as long as the one that opens a channel
            self._break("channel_refused", now)

    def _break(self, reason: str, now: float) -> None:
        """The call cannot go on. A failure, unless we have hung up; the server's own word for it says most."""
        self.stop_talking(now)
        if not self.hung_up:
            self.fail(reason if self.farewell is None else f"ended_{self.farewell}")

    def _channel_opened(self, now: float) -> None:
        self._message_at = now

    def _send_message(self, peer: Peer, channel: int, now: float) -> None:
        message = self.data.next_message()
        try:
            sent = peer.send_message(channel, message, now)
        except LocalError:  # the channel is closing; ChannelClosed follows
            sent = False
        if sent:
            self.data.count_sent(message, now)
        else:
            self.data.refused += 1

    def _receive_message(self, message: str | bytes, now: float) -> None:
        if isinstance(message, str) and message not in self.data.pending and FAREWELL in message:
            self.farewell = read_farewell_untrusted(message)
        elif isinstance(message, str) and message.startswith(METER_ANSWER):
            self.slots = read_slots_untrusted(message)
        elif isinstance(message, str) and '"antiphon.' in message:
            pass  # another word of the server's own, such as antiphon.draining
        else:
            self.data.receive_untrusted(message, now)

    def _reach(self, stage: str, now: float) -> None:
        if stage in self.stages:
            self.reached.setdefault(stage, now)

"""One WebRTC peer: ICE, DTLS, SRTP/RTP and SCTP joined into one core with one socket's worth of paths.

1. A datagram is told apart by its first bytes (RFC 7983). STUN goes to ICE, whatever its source.
2. Everything else must come from a path that an authenticated check came from; else it is dropped. (A DTLS ClientHello or an
   RTP packet from anyone else decides nothing: the fault behind CVE-2023-49786 and RTP Bleed.)
3. DTLS waits for `start_dtls`; a few datagrams that overtake it are kept.
4. When DTLS is connected, its keys go to SRTP and the SCTP association may begin. Each core's output goes to the core
   below it; what ICE, DTLS and SRTP send goes to the selected path.
5. To a path that only a check came from, which is easily forged, little more is sent than came from it (`proof`).
6. Timers are merged: `next_timeout` is the earliest of all.

This file routes; it decides nothing. When to start, pause, resume and close is the session's to say.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from protocol import sctp
from protocol.address import Path
from protocol.demux import Kind, classify_untrusted
from protocol.dtls import ApplicationData, Closed, Connected, Datagram, DtlsEndpoint, Role
from protocol.dtls import Output as DtlsOutput
from protocol.ice import Failed, IceCredentials, IceFull, IceLite, PathSelected, SendTo
from protocol.peer.audio import MAX_PAYLOAD, AudioStream
from protocol.peer.events import (
    AudioParameters,
    AudioReceived,
    CircuitBroken,
    DataChannelsClosed,
    DataParameters,
    DtlsConnected,
    PeerClosed,
    PeerEvent,
    PeerOutput,
    PeerStatistics,
    TransportFailed,
)
from protocol.peer.lane import Deliver, MediaLane
from protocol.peer.proof import PathProof
from protocol.rtp import PathEstimate, ReceivedTotals
from protocol.srtp import SrtpLibrary, library_named
from protocol.wire import Entropy

__all__ = ["Peer", "PeerConfig"]

# Implementation constants
MAX_EARLY_DTLS = 8  # datagrams kept until `start_dtls`: a ClientHello in two pieces, and its retransmissions


@dataclass(frozen=True, slots=True)
class PeerConfig:
    sctp: sctp.SctpConfig = field(default_factory=sctp.SctpConfig)
    srtp: SrtpLibrary = field(default_factory=library_named)


class Peer:
    """The five verbs, and the commands of a session. `poll` gives datagrams and events in order."""

    def __init__(
        self,
        *,
        ice: IceLite | IceFull,
        dtls: DtlsEndpoint,
        audio: AudioParameters | None,
        data: DataParameters | None,
        entropy: Entropy,
        config: PeerConfig | None = None,
    ) -> None:
        self.ice = ice
        self.drops: Counter[str] = Counter()
        self._dtls = dtls
        # What needs keys is made when they are there, and DTLS makes its own when it starts: a call that nobody follows
        # up must be cheap.
        self._audio_parameters = audio
        self._audio: AudioStream | None = None
        self._data = data
        self._sctp: sctp.Association | None = None
        self._entropy = entropy
        self._config = config or PeerConfig()
        self._outputs: list[PeerOutput] = []
        self._early_dtls: list[bytes] = []
        self._dtls_started = False
        self._connected: Connected | None = None
        self._sending = False
        self._closed = False
        self._proof = PathProof(ice, self.drops)

    # The five verbs

    def receive_untrusted(self, data: bytes | memoryview, path: Path, now: float) -> None:
        """A datagram that came along `path`; never raises."""
        kind = classify_untrusted(data)
        if kind is Kind.STUN:
            self.ice.receive_untrusted(data, path, now)
            self._proof.received(len(data), path)
        elif self._closed or not self.ice.is_valid(path):
            self.drops["closed" if self._closed else "path_not_validated"] += 1
            return
        elif kind is Kind.RTP:
            self._receive_rtp_untrusted(bytes(data), path, now)
            return
        elif kind is Kind.RTCP:
            self._receive_rtcp_untrusted(bytes(data), path, now)
        elif kind is Kind.DTLS:
            self._proof.received(len(data), path)
            self._receive_dtls_untrusted(bytes(data), now)
        else:
            self.drops["unknown_protocol"] += 1
            return
        self._settle(now)

    def handle_timeout(self, now: float) -> None:
        self.ice.handle_timeout(now)
        if self._closed:
            return
        self._dtls.handle_timeout(now)
        if self._sctp is not None:
            self._sctp.handle_timeout(now)
        if self._audio is not None and self._sending:
            self._audio.reporter.handle_timeout(now)
        self._settle(now)

    def poll(self) -> list[PeerOutput]:
        outputs, self._outputs = self._outputs, []
        return outputs

    def next_timeout(self) -> float:
        if self._closed:
            return math.inf
        earliest = min(self.ice.next_timeout(), self._dtls.next_timeout())
        if self._sctp is not None:
            earliest = min(earliest, self._sctp.next_timeout())
        if self._audio is not None and self._sending:
            earliest = min(earliest, self._audio.reporter.next_timeout())
        return earliest

    def close(self, now: float) -> None:
        """Goodbyes at once: RTCP BYE, SCTP ABORT, DTLS close_notify; dead and silent afterwards."""
        if self._closed:
            return
        if self._audio is not None and self._sending:
            self._audio.reporter.close(now)
            self._send_rtcp()
        if self._sctp is not None:
            self._sctp.abort(now)  # a SHUTDOWN would take a round trip; what mattered was flushed before
            self._settle(now)
        self._dtls.close(now)
        self._settle(now)
        self._outputs = [output for output in self._outputs if isinstance(output, SendTo)]
        self._closed = True
        self._sending = False
        self.ice.close(now)

    # Commands of the session

    def start_dtls(self, now: float) -> None:
        """From now on DTLS is processed; the client role sends its hello."""
        if self._dtls_started or self._closed:
            return
        self._dtls_started = True
        self._dtls.start(now)
        early, self._early_dtls = self._early_dtls, []
        for data in early:
            self._dtls.receive_untrusted(data, now)
        self._settle(now)

    def restart_ice(self, local: IceCredentials, remote: IceCredentials, now: float) -> None:
        """New ICE credentials of both sides. The path in use stays until they have selected one, which `RestartCompleted`
        tells; DTLS, SRTP and SCTP know nothing of it (RFC 8445 §9)."""
        if not self._closed:
            self.ice.restart(local, remote, now)

    def start_data(self, data: DataParameters, now: float) -> None:
        """A data section came into the call: the SCTP association may begin. Nothing, if there is one."""
        if self._data is None and not self._closed:
            self._data = data
            if self._connected is not None:
                self._sctp = self._associate(data, now)
                self._settle(now)

    def stop_data(self, now: float) -> None:
        """The data section was dropped from the call: its association ends, everything else goes on."""
        self._data = None
        if self._sctp is not None:
            self._sctp.abort(now)
            self._settle(now)
            self.drops += self._sctp.drops
            self._sctp = None

    def start_media(self) -> None:
        self._sending = not self._closed
        if self._audio is not None:
            self._audio.reporter.breaker.reset()

    def pause_media(self) -> None:
        """Consent is late: no media leaves (RFC 7675 §5.1)."""
        self._sending = False

    resume_media = start_media

    def send_audio(self, payload: bytes, timestamp: int, now: float, marker: bool = False) -> bool:
        """One RTP packet on the selected path; False when there are no keys, no path, media is paused or it is too long."""
        path = self.ice.selected
        if len(payload) > MAX_PAYLOAD:
            self.drops["audio_payload_too_long"] += 1
            return False
        if self._audio is None or not self._sending or path is None or self._closed:
            return False
        packet = self._audio.packet(payload, timestamp, marker, now)
        self._tell_trip(self._audio)
        if packet is None or not self._proof.allows(len(packet), path):
            return False
        self._outputs.append(SendTo(packet, path))
        return True

    def request_audio(self, ssrc: int, sequences: tuple[int, ...]) -> None:
        """Ask for packets of the source `ssrc` that did not come (NACK)."""
        if self._audio is not None and self._sending and not self._closed:
            self._audio.request(ssrc, sequences)
            self._send_rtcp()

    def send_feedback(self) -> None:
        """The lane's, too: RTCP that waits leaves now, if any may."""
        if self._sending and not self._closed:
            self._send_rtcp()

    @property
    def requests_audio(self) -> bool:
        """Whether packets that were lost are asked for in this call."""
        return self._audio_parameters is not None and self._audio_parameters.request

    def path_estimate(self) -> PathEstimate:
        """Of the way to the peer: by RTCP, the round trip else by our own checks."""
        estimate = self._audio.path_estimate() if self._audio is not None else PathEstimate()
        return estimate if estimate.round_trip is not None else estimate._replace(round_trip=self.ice.rtt)

    def lane(self, deliver: Deliver) -> MediaLane | None:
        """The short way of audio along the selected path, once there are keys."""
        path = self.ice.selected
        if self._audio is None or path is None or self._closed:
            return None
        return MediaLane(self, self._audio, path, deliver)

    def tell(self, event: PeerEvent) -> None:
        """The lane's: an event for `poll`."""
        self._outputs.append(event)

    def tell_trip(self) -> None:
        """The lane's: the circuit breaker may have tripped."""
        if self._audio is not None:
            self._tell_trip(self._audio)

    def open_channel(
        self,
        label: str,
        now: float,
        protocol: str = "",
        *,
        negotiated: int | None = None,
        ordered: bool = True,
        max_retransmits: int | None = None,
        max_lifetime: float | None = None,
    ) -> int:
        """Open a data channel; its number. `max_lifetime` is in seconds; for the limits see `sctp.Association`.
        Raises LocalError, before the association may begin too."""
        channel = self._association().open_channel(
            label, protocol, ordered, negotiated, max_retransmits=max_retransmits, max_lifetime=max_lifetime
        )
        self._settle(now)
        return channel

    def send_message(self, channel: int, data: str | bytes, now: float) -> bool:
        """False when the channel's buffer is full: wait for ChannelWritable."""
        accepted = self._association().send(channel, data, now)
        self._settle(now)
        return accepted

    def close_channel(self, channel: int, now: float) -> None:
        self._association().close_channel(channel, now)
        self._settle(now)

    def keep_unread(self, octets: int, room: int, now: float) -> None:
        """How much of what `ChannelMessage` gave out nobody has read yet: `sctp.Association.keep_unread`."""
        if self._sctp is not None and self._sctp.keep_unread(octets, room, now):
            self._settle(now)

    @property
    def data_drained(self) -> bool:
        """Whether the other side has acknowledged every data message."""
        return self._sctp is None or self._sctp.drained

    def drops_of_layers(self) -> Iterator[Counter[str]]:
        """What was dropped, by reason; each layer counts for itself."""
        yield self.drops
        yield self.ice.drops
        yield self._dtls.drops
        if self._sctp is not None:
            yield self._sctp.drops
        if self._audio is not None:
            yield self._audio.drops
            yield self._audio.reporter.drops

    def statistics(self, now: float) -> PeerStatistics:
        reporter = self._audio.reporter if self._audio is not None else None
        sources = list(reporter.sources.values()) if reporter is not None else []
        drops: Counter[str] = Counter()
        for layer in self.drops_of_layers():
            drops.update(layer)
        reported = reporter.remote_report if reporter is not None else None
        received = reporter.received if reporter is not None else ReceivedTotals(0, 0, 0)
        measured = reporter.round_trip_time if reporter is not None else None
        return PeerStatistics(
            round_trip_time=measured if measured is not None else self.ice.rtt,
            jitter=max((source.jitter for source in sources), default=None),
            packets_received=received.packets,
            bytes_received=received.octets,
            packets_lost=received.lost,
            packets_sent=reporter.sender.packets_sent if reporter is not None else 0,
            bytes_sent=reporter.sender.octets_sent if reporter is not None else 0,
            remote_fraction_lost=reported.fraction_lost / 256 if reported is not None else None,
            drops=drops,
            rtcp=self._audio.counters if self._audio is not None else Counter(),
            srtp_profile=self._connected.srtp.profile if self._connected and self._connected.srtp else None,
            cipher_suite=self._connected.cipher_suite if self._connected else None,
            path=self.ice.selected,
        )

    # Receiving

    def _receive_rtp_untrusted(self, data: bytes, path: Path, now: float) -> None:
        if self._audio is None:
            self._drop_media()
            return
        authentic, packet = self._audio.receive_rtp_untrusted(data, now)
        if not authentic:
            return
        self.ice.media_authenticated(path, now)
        if self._audio.reporter.has_output:
            self.send_feedback()
        if packet is not None:
            self._outputs.append(AudioReceived(packet))
        if path != self.ice.selected:
            self._settle(now)

    def _receive_rtcp_untrusted(self, data: bytes, path: Path, now: float) -> None:
        if self._audio is None:
            self._drop_media()
        elif self._audio.receive_rtcp_untrusted(data, now):
            self.ice.media_authenticated(path, now)
            self._tell_trip(self._audio)
            if self._sending and not self._closed and (selected := self.ice.selected) is not None:
                for packet in self._audio.take_resends(now):
                    if self._proof.allows(len(packet), selected):
                        self._outputs.append(SendTo(packet, selected))

    def _drop_media(self) -> None:
        self.drops["rtp_not_negotiated" if self._audio_parameters is None else "srtp_no_keys"] += 1

    def _receive_dtls_untrusted(self, data: bytes, now: float) -> None:
        if self._dtls_started:
            self._dtls.receive_untrusted(data, now)
        elif len(self._early_dtls) < MAX_EARLY_DTLS:
            self._early_dtls.append(data)
        else:
            self.drops["dtls_too_early"] += 1

    # Routing between the cores

    def _settle(self, now: float) -> None:
        """Carry each core's output to the core below it, until all are quiet."""
        if self._sctp is not None:
            self._drain_sctp(now)
        while outputs := self._dtls.poll():
            for output in outputs:
                self._route_dtls(output, now)
            if self._sctp is not None:
                self._drain_sctp(now)
        for notice in self.ice.poll():
            if isinstance(notice, PathSelected) and self._audio is not None:
                self._audio.reporter.breaker.reset()
            self._outputs.append(TransportFailed(notice.reason) if isinstance(notice, Failed) else notice)
        if self._audio is not None and self._sending and self._audio.reporter.has_output:
            self._send_rtcp()

    def _route_dtls(self, output: DtlsOutput, now: float) -> None:
        match output:
            case Datagram():
                if (path := self.ice.selected) is None:
                    self.drops["dtls_without_path"] += 1  # its timer sends it again
                elif self._proof.allows(len(output.data), path):
                    self._outputs.append(SendTo(output.data, path))
                    self._proof.handshake_sent(path)
            case ApplicationData():
                if self._sctp is None:
                    self.drops["data_not_negotiated"] += 1
                else:
                    self._sctp.receive_untrusted(output.data, now)
            case Connected():
                self._become_connected(output, now)
            case Closed():
                ended = PeerClosed if output.by_peer and output.reason == "close_notify" else TransportFailed
                self._outputs.append(ended(output.reason))

    def _become_connected(self, connected: Connected, now: float) -> None:
        self._connected = connected
        self._proof.handshake_completed()
        if self._audio_parameters is not None and connected.srtp is not None:
            self._audio = AudioStream(self._audio_parameters, connected.srtp, self._entropy, self._config.srtp)
        if self._data is not None:
            self._sctp = self._associate(self._data, now)
        profile = connected.srtp.profile if connected.srtp is not None else 0
        self._outputs.append(DtlsConnected(profile, connected.cipher_suite, connected.version))

    def _associate(self, data: DataParameters, now: float) -> sctp.Association:
        association = sctp.Association(
            is_client=self._dtls.role is Role.CLIENT,
            local_port=data.local_sctp_port,
            remote_port=data.remote_sctp_port,
            max_message_size_remote=data.remote_max_message_size,
            entropy=self._entropy,
            config=self._config.sctp,
        )
        for channel, label in data.negotiated:
            association.open_channel(label, negotiated_id=channel)
        association.connect(now)  # both do, as browsers among themselves: the quicker timer opens it (docs/adr/0013)
        return association

    def _drain_sctp(self, now: float) -> None:
        assert self._sctp is not None
        for output in self._sctp.poll():
            match output:
                case sctp.Packet():
                    if self._dtls.is_connected:
                        self._dtls.send(output.data, now)
                    else:  # close_notify came in the same datagram as data, or with the association still up
                        self.drops["sctp_without_dtls"] += 1
                case sctp.AssociationUp():
                    pass
                case sctp.AssociationClosed():
                    self._outputs.append(DataChannelsClosed(output.reason))
                case _:
                    self._outputs.append(output)

    def _tell_trip(self, audio: AudioStream) -> None:
        if (trip := audio.reporter.breaker.take_trip()) is not None:
            self._outputs.append(CircuitBroken(trip.value))

    def _send_rtcp(self) -> None:
        assert self._audio is not None
        for data in self._audio.rtcp():
            if (path := self.ice.selected) is not None and self._proof.allows(len(data), path):
                self._outputs.append(SendTo(data, path))

    def _association(self) -> sctp.Association:
        if self._sctp is None:
            raise sctp.UnknownChannel("no data channels before DTLS is connected, or without an m=application section")
        return self._sctp

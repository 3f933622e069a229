"""The audio stream of one peer: RTP and RTCP under SRTP keys.

Receiving: authenticate first (RFC 3711 §3.3), then parse, then count. Packets of every payload type come out: sequence
numbers run across all of them, so whoever puts them in order must see all and choose afterwards.
Sending: our SSRC, consecutive sequence numbers from a random start (RFC 3550 §5.1), timestamps as the caller gives them
on top of a random offset. The circuit breaker can stop it (RFC 8083).
When each packet came is told to the peer, if that was agreed on (`arrivals`, `send_arrivals`).
Losses: `request` asks the peer for packets (NACK); what the peer asks for comes out of `take_resends`, if the stream keeps it.
"""

from __future__ import annotations

from collections import Counter

from protocol.codecs import RedWriter
from protocol.dtls import SrtpKeys
from protocol.errors import DecodeError
from protocol.peer.events import AudioParameters
from protocol.rtp import (
    ArrivalLog,
    PathEstimate,
    ResendBuffer,
    RtcpReporter,
    RtpPacket,
    parse_rtp_untrusted,
    serialize_rtp,
)
from protocol.rtp.rtcp import NACK_FORMAT, TRANSPORT_CC_FORMAT, Feedback, RtcpType, write_nack
from protocol.srtp import SrtpLibrary, SrtpProfile, SrtpTransport
from protocol.srtp.transport import reason_of
from protocol.wire import Entropy

__all__ = ["MAX_PAYLOAD", "AudioStream"]

# Specification constants
TRANSPORT_SEQUENCE_LENGTH = 2  # bytes of its value in the header extension

# Implementation constants
MAX_PAYLOAD = 1172  # bytes: with the RTP header and the longest SRTP tag a datagram stays within 1200


class AudioStream:
    """Made when the keys are there; before them nothing could be received or sent."""

    def __init__(
        self, parameters: AudioParameters, keys: SrtpKeys, entropy: Entropy, library: SrtpLibrary | None = None
    ) -> None:
        self.parameters = parameters
        self.reporter = RtcpReporter(
            ssrc=parameters.ssrc,
            cname=parameters.cname,
            clock_rate=parameters.clock_rate,
            entropy=entropy,
            ntp_epoch=parameters.ntp_epoch,
            reduced_size=parameters.reduced_size,
        )
        self.resend = ResendBuffer() if parameters.resend else None  # what the peer may ask for again
        self.red = RedWriter(parameters.payload_type) if parameters.send_red_as is not None else None
        self.arrivals = ArrivalLog() if parameters.transport_cc_id is not None else None
        self.drops: Counter[str] = Counter()
        self._srtp = SrtpTransport(SrtpProfile(keys.profile), keys.local, keys.remote, library=library)
        # Below 2^15, as RFC 3711 §3.3.1 advises: a first packet lost then cannot confuse the rollover counter.
        self._sequence = int.from_bytes(entropy(2), "big") & 0x7FFF
        self._timestamp_offset = int.from_bytes(entropy(4), "big")

    def receive_rtp_untrusted(self, data: bytes, now: float) -> tuple[bool, RtpPacket | None]:
        """(whether it authenticated, the packet if it is one for us); never raises."""
        try:
            plain = self._srtp.unprotect_rtp_untrusted(data)
        except DecodeError as error:
            self.drops[error.reason] += 1
            return False, None
        try:
            packet = parse_rtp_untrusted(plain)
        except DecodeError as error:
            self.drops[error.reason] += 1
            return True, None
        if packet.extensions and self.arrivals is not None:
            self._note_arrival(packet, now)
        counted = self.reporter.packet_received(
            packet.ssrc, packet.sequence, packet.timestamp, len(packet.payload), now
        )
        return True, packet if counted else None

    def refuse(self, status: int) -> None:
        """Count a packet that the SRTP library did not open."""
        self.drops[reason_of(status)] += 1

    def receive_rtcp_untrusted(self, data: bytes, now: float) -> bool:
        """Whether it authenticated; never raises."""
        try:
            plain = self._srtp.unprotect_rtcp_untrusted(data)
        except DecodeError as error:
            self.drops[error.reason] += 1
            return False
        self.reporter.receive_untrusted(plain, now)
        return True

    def packet(self, payload: bytes, timestamp: int, marker: bool, now: float) -> bytes | None:
        """The next protected RTP packet, with a payload of at most MAX_PAYLOAD bytes; None when nothing may be sent."""
        if (tripped := self.reporter.breaker.tripped) is not None:
            self.drops[f"circuit_{tripped.value}"] += 1
            return None
        if self._srtp.expired:
            self.drops["srtp_key_expired"] += 1
            return None
        parameters = self.parameters
        sequence = self._sequence
        self._sequence = sequence + 1 & 0xFFFF
        wire_timestamp = timestamp + self._timestamp_offset & 0xFFFFFFFF
        payload_type = parameters.payload_type
        if self.red is not None and parameters.send_red_as is not None:
            payload_type = parameters.send_red_as
            payload = self.red.write(payload, wire_timestamp, MAX_PAYLOAD)
        plain = serialize_rtp(payload_type, sequence, wire_timestamp, parameters.ssrc, payload, marker)
        self.reporter.packet_sent(wire_timestamp, len(payload), now)
        protected = self._srtp.protect_rtp(plain)
        if self.resend is not None:
            self.resend.keep(sequence, protected)
        return protected

    # Feedback

    def _note_arrival(self, packet: RtpPacket, now: float) -> None:
        assert self.arrivals is not None
        for identifier, value in packet.extensions:
            if identifier == self.parameters.transport_cc_id and len(value) == TRANSPORT_SEQUENCE_LENGTH:
                if self.arrivals.record(value[0] << 8 | value[1], now):
                    self.send_arrivals(packet.ssrc, now)
                return

    def send_arrivals(self, ssrc: int, now: float) -> None:
        """Tell what came since the last time; `ssrc` is that of one of the packets."""
        assert self.arrivals is not None
        for told in self.arrivals.take(now):
            feedback = Feedback(RtcpType.RTPFB, TRANSPORT_CC_FORMAT, self.parameters.ssrc, ssrc, told.information())
            self.reporter.counters["transport_cc_sent"] += self.reporter.send_feedback(feedback)

    def path_estimate(self) -> PathEstimate:
        """Of the way to the peer, by RTCP; the jitter is that of the source heard last."""
        source = max(self.reporter.sources.values(), key=lambda source: source.last_arrival, default=None)
        known = source is not None and source.packets_received > 1
        return PathEstimate(self.reporter.round_trip_time, source.jitter if source is not None and known else None)

    def request(self, ssrc: int, sequences: tuple[int, ...]) -> None:
        """Ask for packets of the peer's (NACK, RFC 4585 §6.2.1)."""
        feedback = Feedback(RtcpType.RTPFB, NACK_FORMAT, self.parameters.ssrc, ssrc, write_nack(sequences))
        self.reporter.send_feedback(feedback)
        self.reporter.counters["nack_sent"] += 1

    def take_resends(self, now: float) -> list[bytes]:
        """The packets of ours that the peer has asked for, protected as they were; those that the limits allow."""
        nacked = self.reporter.take_nacked()
        if not nacked or self.resend is None:
            return []
        if self.resend.has_any(nacked):
            self.reporter.breaker.asked_for()
        if self.reporter.breaker.tripped is not None:
            return []
        return self.resend.take(nacked, now, self.reporter.round_trip_time)

    @property
    def counters(self) -> Counter[str]:
        """What RTCP told, and what we answered."""
        counters = self.reporter.counters
        return counters + self.resend.counters if self.resend is not None else Counter(counters)

    def rtcp(self) -> list[bytes]:
        """Protected RTCP that is due."""
        return [self._srtp.protect_rtcp(output.data) for output in self.reporter.poll() if not self._srtp.expired]

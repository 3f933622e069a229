"""When RTCP is sent, and what it says (RFC 3550 §6.2, §6.3, §6.4; RFC 8108 for several sources of one peer).

1. The first RTP packet in either direction starts the clock; the first report follows early, so that a round-trip time
   is known soon (RFC 3550 §6.2 lets a unicast session do without the initial wait).
2. Then a report every `interval` seconds × U(0.5, 1.5) ÷ (e − 3/2), as §6.3.1 draws it. With two members and any voice
   codec five per cent of the bandwidth allow more than that, so the minimum interval always governs and the bandwidth
   is not computed; nor is there anything to reconsider when the group cannot grow.
3. A report is SR (RR if we sent nothing in the last two intervals), with a block for each source heard since the last
   one, and SDES with our CNAME. `close` sends the same and BYE, once.
4. The peer's reports give the round trip (their LSR must be that of a report we sent), and feed the circuit breaker.
5. Feedback (RFC 4585) is counted by its kind. What a NACK names of our packets is kept for `take_nacked`; there is nothing
   else that we could repeat or refresh. APP and XR are read past. `send_feedback` sends ours at once.
6. Reduced-size packets (RFC 5506) are taken whether negotiated or not; ours are compound unless `reduced_size`.

The reporter also keeps the statistics of every source. A source is forgotten when it says BYE, and when neither RTP nor
RTCP of it came for `source_timeout`; what it counted stays in `received`. Sources are bounded: when the table is full, a
new one takes the place of the one longest silent, if that has timed out; else it is refused (`rtcp_source_limit`).
"""

from __future__ import annotations

import collections
import math
from dataclasses import dataclass
from typing import NamedTuple

from protocol.errors import DecodeError
from protocol.rtp.breaker import CircuitBreaker
from protocol.rtp.ntp import short_ntp, short_to_seconds
from protocol.rtp.rtcp import (
    NACK_FORMAT,
    TRANSPORT_CC_FORMAT,
    Feedback,
    Goodbye,
    ReceiverReport,
    ReportBlock,
    RtcpPacket,
    RtcpType,
    SdesChunk,
    SdesItemType,
    SenderReport,
    SourceDescription,
    parse_rtcp_untrusted,
    read_nack_untrusted,
    serialize_rtcp,
)
from protocol.rtp.statistics import ReceiverStatistics, SenderStatistics
from protocol.wire import Entropy

__all__ = ["ReceivedTotals", "RtcpConfig", "RtcpDatagram", "RtcpReporter"]

# Specification constants
_COMPENSATION = math.e - 1.5  # RFC 3550 §6.3.1: timer reconsideration converges below the wanted average
_SENDER_INTERVALS = 2  # RFC 3550 §6.4: a sender is who sent since the report before the last one
_FEEDBACK_NAMES: dict[tuple[int, int], str] = {
    (RtcpType.RTPFB, NACK_FORMAT): "nack",
    (RtcpType.RTPFB, TRANSPORT_CC_FORMAT): "transport_cc",
    (RtcpType.PSFB, 1): "pli",
    (RtcpType.PSFB, 4): "fir",
    (RtcpType.PSFB, 15): "afb",
}  # https://www.iana.org/assignments/rtp-parameters/, "FMT Values"

# Implementation constants
_REPORTS_REMEMBERED = 8  # own sender reports that a peer may still refer to, 40 s and more
_NTP_MASK = (1 << 64) - 1
_CLOCK_SLACK = 0.01  # a round trip may come out negative by the rounding of DLSR; more than that is nonsense
_MAX_ROUND_TRIP = 60.0
_MAX_WAITING = 8  # datagrams that nobody takes: media is paused
_MAX_NACKED = 64  # sequence numbers kept until they are taken; a peer that names more is not helped by them


@dataclass(frozen=True, slots=True)
class RtcpConfig:
    interval: float = 5.0  # RFC 3550 §6.2: Tmin
    first_interval: float = 0.5  # drawn like the others
    source_timeout: float = 25.0  # RFC 3550 §6.3.5: five intervals
    max_sources: int = 8  # at most 31, the blocks that fit one report


@dataclass(frozen=True, slots=True)
class RtcpDatagram:
    """A compound packet to be protected and sent."""

    data: bytes


class ReceivedTotals(NamedTuple):
    """Of all sources of the peer, those that have ended included."""

    packets: int
    octets: int  # payload only
    lost: int  # less than 0 when there were duplicates

    def plus(self, source: ReceiverStatistics) -> ReceivedTotals:
        return ReceivedTotals(
            self.packets + source.packets_received,
            self.octets + source.octets_received,
            self.lost + source.packets_lost,
        )


class RtcpReporter:
    """RTCP of one audio stream: `ssrc` and `cname` are ours, `clock_rate` that of both directions.

    `ntp_epoch` is the NTP time at which `now` is 0. Left at 0, our reports tell the time of a clock without a date, which
    RFC 3550 §6.4.1 allows; browsers then show their pages a `remoteTimestamp` of the year 2036.
    """

    def __init__(
        self,
        *,
        ssrc: int,
        cname: str,
        clock_rate: int,
        entropy: Entropy,
        ntp_epoch: int = 0,
        reduced_size: bool = False,
        config: RtcpConfig | None = None,
    ) -> None:
        self.sender = SenderStatistics(ssrc, clock_rate)
        self.sources: dict[int, ReceiverStatistics] = {}
        self.drops: collections.Counter[str] = collections.Counter()
        self.counters: collections.Counter[str] = collections.Counter()  # feedback_…, source_bye, source_timeout
        self.round_trip_time: float | None = None  # seconds, from the latest report that told it
        self.remote_report: ReportBlock | None = None  # what the peer last said of our source
        self.last_received: float | None = None  # when the last RTCP of the peer came
        self._config = config or RtcpConfig()
        self.breaker = CircuitBreaker(self._config.interval)
        self._entropy = entropy
        self._ntp_epoch = ntp_epoch
        self._description = SourceDescription((SdesChunk(ssrc, ((SdesItemType.CNAME, cname.encode()),)),))
        self._reduced_size = reduced_size
        self._nacked: list[int] = []
        self._ended = ReceivedTotals(0, 0, 0)
        self._outputs: list[RtcpDatagram] = []
        self._due = math.inf
        self._started = False
        self._closed = False
        self._packets_at_reports: collections.deque[int] = collections.deque([0] * _SENDER_INTERVALS, _SENDER_INTERVALS)
        self._sent_reports: collections.deque[int] = collections.deque(maxlen=_REPORTS_REMEMBERED)
        self._last_report = -math.inf

    # Packets

    def packet_sent(self, timestamp: int, octets: int, now: float) -> None:
        """Count an RTP packet that we sent, with `octets` of payload."""
        self.sender.send(timestamp, octets, now)
        self.breaker.packet_sent(now)
        if not self._started:
            self._start(now)

    def packet_received(self, ssrc: int, sequence: int, timestamp: int, octets: int, now: float) -> bool:
        """Count an authenticated RTP packet. False: it must not be used, for its source is ours or one too many."""
        source = self.sources.get(ssrc)
        if source is None:
            source = self._new_source(ssrc, now)
            if source is None:
                return False
        source.receive(sequence, timestamp, octets, now)
        if not self._started:
            self._start(now)
        return True

    def _new_source(self, ssrc: int, now: float) -> ReceiverStatistics | None:
        if ssrc == self.sender.ssrc:
            # RFC 3550 §8.2: a loop or a collision. The SDP told the peer our SSRC, so it is the peer that must change.
            self.drops["rtcp_ssrc_collision"] += 1
            return None
        if len(self.sources) >= self._config.max_sources:
            self._forget_silent(now)
        if len(self.sources) >= self._config.max_sources:
            self.drops["rtcp_source_limit"] += 1
            return None
        source = self.sources[ssrc] = ReceiverStatistics(ssrc, self.sender.clock_rate)
        return source

    @property
    def received(self) -> ReceivedTotals:
        totals = self._ended
        for source in self.sources.values():
            totals = totals.plus(source)
        return totals

    def _forget_silent(self, now: float) -> None:
        for source in list(self.sources.values()):
            if now - source.last_heard >= self._config.source_timeout:
                self._forget(source.ssrc, "timeout")

    def _forget(self, ssrc: int, why: str) -> None:
        if (source := self.sources.pop(ssrc, None)) is not None:
            self._ended = self._ended.plus(source)
            self.counters[f"source_{why}"] += 1

    # The five verbs

    def receive_untrusted(self, data: bytes | memoryview, now: float) -> None:
        """A decrypted, authenticated RTCP datagram; never raises."""
        if self._closed:
            return
        try:
            packets = parse_rtcp_untrusted(data)
        except DecodeError as error:
            self.drops[error.reason] += 1
            return
        self.last_received = now
        for packet in packets:
            self._receive_packet(packet, now)

    def handle_timeout(self, now: float) -> None:
        if now >= self._due:
            self._forget_silent(now)
            self._outputs.append(RtcpDatagram(serialize_rtcp(self._compound(now))))
            self._schedule(self._config.interval, now)

    def poll(self) -> list[RtcpDatagram]:
        outputs, self._outputs = self._outputs, []
        return outputs

    @property
    def has_output(self) -> bool:
        """Whether `poll` has something."""
        return bool(self._outputs)

    def next_timeout(self) -> float:
        return self._due

    def close(self, now: float) -> None:
        """Say BYE, if anything was ever said; nothing is sent or taken afterwards."""
        if not self._closed and self._started:
            packets = [*self._compound(now), Goodbye((self.sender.ssrc,))]
            self._outputs.append(RtcpDatagram(serialize_rtcp(packets)))
        self._closed = True
        self._due = math.inf

    # Feedback

    def send_feedback(self, feedback: Feedback) -> bool:
        """Have it sent at once (RFC 4585 §3.5.2: two parties may). False once closed, or while nothing may leave."""
        if self._closed or len(self._outputs) >= _MAX_WAITING:
            return False
        head: list[RtcpPacket] = [] if self._reduced_size else [ReceiverReport(self.sender.ssrc), self._description]
        self._outputs.append(RtcpDatagram(serialize_rtcp([*head, feedback])))
        return True

    def take_nacked(self) -> list[int]:
        """The sequence numbers of ours that the peer has asked for since the last call."""
        nacked, self._nacked = self._nacked, []
        return nacked

    def _receive_feedback(self, feedback: Feedback) -> None:
        kind = (feedback.packet_type, feedback.format)
        self.counters[f"feedback_{_FEEDBACK_NAMES.get(kind, 'other')}"] += 1
        if kind == (RtcpType.RTPFB, NACK_FORMAT) and feedback.media_ssrc == self.sender.ssrc:
            try:
                if len(self._nacked) < _MAX_NACKED:
                    self._nacked += read_nack_untrusted(feedback.information)[: _MAX_NACKED - len(self._nacked)]
            except DecodeError as error:
                self.drops[error.reason] += 1

    # Sending

    def _start(self, now: float) -> None:
        self._started = True
        if not self._closed:
            self._schedule(self._config.first_interval, now)

    def _schedule(self, interval: float, now: float) -> None:
        uniform = int.from_bytes(self._entropy(4), "big") / (1 << 32)
        self._due = now + interval * (0.5 + uniform) / _COMPENSATION

    def _compound(self, now: float) -> list[RtcpPacket]:
        heard = [source for source in self.sources.values() if source.last_arrival >= self._last_report]
        blocks = tuple(source.report_block(now) for source in heard)
        report: SenderReport | ReceiverReport
        if self.sender.packets_sent > self._packets_at_reports[0]:
            report = self.sender.sender_report(self._ntp(now), now, blocks)
            self._sent_reports.append(short_ntp(report.ntp_time))
        else:
            report = ReceiverReport(self.sender.ssrc, blocks)
        self._packets_at_reports.append(self.sender.packets_sent)
        self._last_report = now
        return [report, self._description]

    def _ntp(self, now: float) -> int:
        return self._ntp_epoch + int(now * (1 << 32)) & _NTP_MASK

    # Receiving

    def _receive_packet(self, packet: RtcpPacket, now: float) -> None:
        match packet:
            case SenderReport():
                if (source := self.sources.get(packet.ssrc)) is not None:
                    source.sender_report(packet, now)
                self._receive_blocks(packet.reports, now)
            case ReceiverReport():
                if (source := self.sources.get(packet.ssrc)) is not None:
                    source.last_heard = now
                self._receive_blocks(packet.reports, now)
            case Goodbye():
                for ssrc in packet.sources:
                    self._forget(ssrc, "bye")
            case Feedback():
                self._receive_feedback(packet)
            case _:
                pass  # SDES, APP, XR: nothing we act on

    def _receive_blocks(self, blocks: tuple[ReportBlock, ...], now: float) -> None:
        if all(block.ssrc != self.sender.ssrc for block in blocks):
            self.breaker.report_of_others()
        for block in blocks:
            if block.ssrc != self.sender.ssrc:
                continue
            self.remote_report = block
            if block.last_sender_report and block.last_sender_report in self._sent_reports:  # 0: it had none of ours
                # RFC 3550 §6.4.1: A - LSR - DLSR, in short NTP time.
                elapsed = short_ntp(self._ntp(now)) - block.last_sender_report - block.delay_since_last_sender_report
                round_trip = short_to_seconds(elapsed)
                if -_CLOCK_SLACK <= round_trip <= _MAX_ROUND_TRIP:
                    self.round_trip_time = max(0.0, round_trip)
            self.breaker.report(block, self.round_trip_time, now)

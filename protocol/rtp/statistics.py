"""What an RTP sender and an RTP receiver count (RFC 3550 §6.4, Appendices A.1, A.3, A.8).

`ReceiverStatistics`: one source that we hear. Each packet updates the extended highest sequence number and the jitter;
`report_block` closes an interval and says what was lost. `SenderStatistics`: our own source, as a sender report tells it.

The probation of Appendix A.1 (two packets in sequence before a source counts) is left out: every packet that comes here
was authenticated by SRTP, so it is not stray traffic.
"""

from __future__ import annotations

from protocol.rtp.ntp import short_ntp
from protocol.rtp.rtcp import ReportBlock, SenderReport

__all__ = ["ReceiverStatistics", "SenderStatistics"]

# Specification constants (RFC 3550 §A.1)
_MAX_DROPOUT = 3000
_MAX_MISORDER = 100
_SEQUENCES = 1 << 16
_NO_SEQUENCE = _SEQUENCES + 1  # no sequence number equals it

_MAX_LOST = 0x7FFFFF  # cumulative loss is a signed number of 24 bits
_MIN_LOST = -0x800000

# Implementation constants
_MAX_TRANSIT_STEP = 10  # seconds: more is another capture clock, or a path that stood still; neither is jitter


class ReceiverStatistics:
    """Loss and jitter of one source, by RFC 3550's own arithmetic (duplicates count as received).

    Two kinds of packet are left out of the jitter, for they say nothing of the network: one with the timestamp of the
    packet before (RFC 4733 §2.5.1: all packets of an event name its start), and one whose transit time has leapt.
    """

    __slots__ = (
        "_bad_sequence",
        "_base_sequence",
        "_cycles",
        "_expected_prior",
        "_jitter",
        "_largest_step",
        "_last_sender_report",
        "_last_timestamp",
        "_max_sequence",
        "_received_prior",
        "_sender_report_arrival",
        "_transit",
        "_uncounted",
        "clock_rate",
        "last_arrival",
        "last_heard",
        "octets_received",
        "packets_received",
        "ssrc",
    )

    def __init__(self, ssrc: int, clock_rate: int) -> None:
        self.ssrc = ssrc
        self.clock_rate = clock_rate
        self.packets_received = 0  # ever, whatever their sequence numbers
        self.octets_received = 0  # payload only
        self.last_arrival = 0.0  # of RTP
        self.last_heard = 0.0  # RTP or RTCP, RFC 3550 §6.3.5
        self._last_timestamp = 0
        self._transit: int | None = None
        self._largest_step = _MAX_TRANSIT_STEP * clock_rate
        self._jitter = 0  # 16 times the jitter, in timestamp units, as in Appendix A.8
        self._last_sender_report = 0
        self._sender_report_arrival = 0.0
        self._restart(0)

    def _restart(self, sequence: int) -> None:
        self._base_sequence = sequence
        self._max_sequence = sequence
        self._bad_sequence = _NO_SEQUENCE
        self._cycles = 0
        self._uncounted = self.packets_received  # those before the base sequence number, and strays
        self._received_prior = 0
        self._expected_prior = 0

    def receive(self, sequence: int, timestamp: int, octets: int, now: float) -> None:
        """One packet arrived, with `octets` of payload."""
        received = self.packets_received
        if not received:
            self._restart(sequence)
        self.packets_received = received + 1
        self.octets_received += octets
        self.last_arrival = self.last_heard = now
        highest = self._max_sequence
        if sequence == highest + 1:  # nearly always
            self._max_sequence = sequence
        elif (ahead := sequence - highest & 0xFFFF) < _MAX_DROPOUT:
            if sequence < highest:
                self._cycles += _SEQUENCES
            self._max_sequence = sequence
        elif ahead <= _SEQUENCES - _MAX_MISORDER:
            # A very large jump: the sender restarted if the next packet goes on from here, else it is a stray.
            if sequence != self._bad_sequence:
                self._bad_sequence = sequence + 1 & 0xFFFF
                self._uncounted += 1
                return
            self._restart(sequence)
            self._uncounted -= 1  # this one
            self._transit = None
        last = self._transit
        if timestamp == self._last_timestamp and last is not None:
            return
        self._last_timestamp = timestamp
        self._transit = transit = int(now * self.clock_rate) - timestamp
        if last is not None:
            d = transit - last & 0xFFFFFFFF
            if d >> 31:
                d = 0x100000000 - d
            if d <= self._largest_step:
                jitter = self._jitter
                self._jitter = jitter + d - (jitter + 8 >> 4)

    def sender_report(self, report: SenderReport, now: float) -> None:
        """Remember the source's sender report, from which it will compute the round trip."""
        self.last_heard = now
        self._last_sender_report = short_ntp(report.ntp_time)
        self._sender_report_arrival = now

    @property
    def _received(self) -> int:
        """Since the base sequence number."""
        return self.packets_received - self._uncounted

    @property
    def highest_sequence(self) -> int:
        """The extended highest sequence number received."""
        return self._cycles + self._max_sequence

    @property
    def packets_expected(self) -> int:
        return self.highest_sequence - self._base_sequence + 1 if self.packets_received else 0

    @property
    def packets_lost(self) -> int:
        """Since the start; less than 0 when there were duplicates."""
        return max(_MIN_LOST, min(_MAX_LOST, self.packets_expected - self._received))

    @property
    def jitter(self) -> float:
        """Interarrival jitter in seconds."""
        return (self._jitter >> 4) / self.clock_rate

    def report_block(self, now: float) -> ReportBlock:
        """The block about this source; begins a new interval for `fraction_lost`."""
        expected = self.packets_expected
        expected_interval = expected - self._expected_prior
        lost_interval = expected_interval - (self._received - self._received_prior)
        self._expected_prior = expected
        self._received_prior = self._received
        fraction = min(255, (lost_interval << 8) // expected_interval) if lost_interval > 0 < expected_interval else 0
        delay = 0
        if self._last_sender_report:
            delay = min(0xFFFFFFFF, max(0, int((now - self._sender_report_arrival) * 65536)))
        return ReportBlock(
            ssrc=self.ssrc,
            fraction_lost=fraction,
            packets_lost=self.packets_lost,
            highest_sequence=self.highest_sequence & 0xFFFFFFFF,
            jitter=min(0xFFFFFFFF, self._jitter >> 4),
            last_sender_report=self._last_sender_report,
            delay_since_last_sender_report=delay,
        )


class SenderStatistics:
    """Our own source. `last_timestamp` is that of the packet sent last, `last_sent` when that was."""

    __slots__ = ("clock_rate", "last_sent", "last_timestamp", "octets_sent", "packets_sent", "ssrc")

    def __init__(self, ssrc: int, clock_rate: int) -> None:
        self.ssrc = ssrc
        self.clock_rate = clock_rate
        self.packets_sent = 0
        self.octets_sent = 0  # payload only, RFC 3550 §6.4.1
        self.last_timestamp = 0
        self.last_sent = 0.0

    def send(self, timestamp: int, octets: int, now: float) -> None:
        """One packet was sent, with `octets` of payload."""
        self.packets_sent += 1
        self.octets_sent += octets
        self.last_timestamp = timestamp
        self.last_sent = now

    def sender_report(self, ntp_time: int, now: float, reports: tuple[ReportBlock, ...] = ()) -> SenderReport:
        """`ntp_time` is the time `now`; the RTP time of the same instant is reckoned on from the last packet."""
        elapsed = int((now - self.last_sent) * self.clock_rate)
        return SenderReport(
            ssrc=self.ssrc,
            ntp_time=ntp_time,
            rtp_time=self.last_timestamp + elapsed & 0xFFFFFFFF,
            packet_count=self.packets_sent & 0xFFFFFFFF,
            octet_count=self.octets_sent & 0xFFFFFFFF,
            reports=reports,
        )

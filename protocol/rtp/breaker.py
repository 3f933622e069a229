"""The circuit breaker of one RTP sender (RFC 8083 §4): what must end sending when nothing else does.

1. RTCP timeout: we have been sending for three reporting intervals, and no report told of our packets, nor did a NACK ask
   for one: on a path that loses, three reports in a row are lost now and then, and much is asked for. Nine intervals
   without a report are too many, whatever is asked for: only reports tell how much is lost.
2. Media timeout: reports come, and their highest sequence number has stood still for three of them, while we sent; or none of
   them tells of our packets, twice in a row.
3. Congestion: for three intervals, and three reports in a row, we sent ten times what TCP would at such loss and round
   trip. Peers that report often are not heard sooner.
4. Media usability: so long, half of what we sent was lost. Nobody follows such speech, whatever the round trip.

The rate of TCP is the milder one, without its timeouts (the first term of RFC 5348 §3.1): by the other, a fifth lost on a
path of 110 ms would end a call of which most is still understood.

Three is what RFC 8083 §4.3 gives for CB_INTERVAL with 20 ms frames, RTCP every five seconds, and round trips of a call.

Time counts while we send: an agent that is silent has nothing to be reported. The first two wait until the peer has
shown that it can report: there are clients without RTCP, and whether one still wants packets is for consent to say
(RFC 7675). A tripped breaker stays so until `reset` (another path, consent that came back); an RTCP timeout also ends
with the next report, which shows that its cause is gone. That report need not tell of us: who hears nothing of us any more has
nothing to tell. But if none does when we have sent again for as long, that is a media timeout.
"""

from __future__ import annotations

import enum
import math

from protocol.rtp.rtcp import ReportBlock

__all__ = ["CircuitBreaker", "Trip"]

# Specification constants
_REPORTS = 3  # CB_INTERVAL
_RATE_FACTOR = 10  # RFC 8083 §4.3: an order of magnitude above a fair flow
_UNUSABLE_LOSS = 0.5  # RFC 8083 §4.4 leaves the measure to the application

# Implementation constants
_SPURT_GAP = 1.0  # seconds between two packets beyond which we were not sending
_UNREPORTED = 3  # times as long as without a NACK, for which NACKs stand in for a report
_MIN_PACKETS = 25  # sent since the last report, for its loss to mean anything
_MIN_ROUND_TRIP = 0.001  # seconds: a measured 0 would allow any rate


class Trip(enum.Enum):
    """Why sending ended; the values are metric labels."""

    RTCP_TIMEOUT = "rtcp_timeout"
    MEDIA_TIMEOUT = "media_timeout"
    CONGESTION = "congestion"
    MEDIA_UNUSABLE = "media_unusable"


class CircuitBreaker:
    """`packet_sent`, `report`, `report_of_others` and `asked_for` feed it; while `tripped` is not None nothing may be sent.
    `take_trip` tells it once."""

    __slots__ = (
        "_bad_reports",
        "_bad_since",
        "_has_advanced",
        "_highest",
        "_last_report",
        "_last_sent",
        "_limit",
        "_news",
        "_on_trial",
        "_reported_at",
        "_sending",
        "_sent_since_report",
        "_stalled_from",
        "_stalled_reports",
        "_timeout_at",
        "tripped",
    )

    def __init__(self, reporting_interval: float) -> None:
        self.tripped: Trip | None = None
        self._news: Trip | None = None
        self._limit = _REPORTS * reporting_interval
        self._highest: int | None = None  # the latest report's; None before the first
        self._has_advanced = False  # the peer counts what we send, and tells
        self.reset()

    def reset(self) -> None:
        """The circumstances are new: judge afresh, and let sending go on."""
        self.tripped = None
        self._last_sent = -math.inf
        self._last_report = math.nan
        self._sent_since_report = 0
        self._sending = 0.0  # seconds, all in all
        self._reported_at = 0.0  # the same when the last report came
        self._stalled_from = 0.0  # the same when the highest sequence number advanced last
        self._stalled_reports = 0
        self._bad_reports = 0
        self._bad_since = 0.0
        self._on_trial = False  # sending again after an RTCP timeout, without a word about it so far
        self._await_report()

    def _await_report(self) -> None:
        """Let the time until an RTCP timeout begin."""
        self._timeout_at = self._sending + self._limit if self._has_advanced else math.inf

    def packet_sent(self, now: float) -> bool:
        """We sent an RTP packet. Whether the breaker has tripped by that."""
        gap = now - self._last_sent
        self._last_sent = now
        self._sent_since_report += 1
        if gap < _SPURT_GAP:
            self._sending = sending = self._sending + gap
            if sending >= self._timeout_at:
                self._trip(Trip.MEDIA_TIMEOUT if self._on_trial else Trip.RTCP_TIMEOUT)
                return True
        return False

    def report_of_others(self) -> None:
        """A report came without a block about our source."""
        if self.tripped is Trip.RTCP_TIMEOUT:
            self.reset()
            self._on_trial = True

    def asked_for(self) -> None:
        """The peer asked for a packet that we sent lately (NACK): it hears us, how well is for its reports to say. So for a
        while none is missed; a breaker that has tripped stays so."""
        if self.tripped is None and self._timeout_at != math.inf:
            self._on_trial = False
            longest = self._reported_at + _UNREPORTED * self._limit
            self._timeout_at = max(self._timeout_at, min(self._sending + self._limit, longest))

    def report(self, block: ReportBlock, round_trip: float | None, now: float) -> None:
        """A block about our source came. `round_trip`: seconds, None when not known."""
        if self.tripped is Trip.RTCP_TIMEOUT:
            self.reset()
        self._on_trial = False
        self._judge_progress(block.highest_sequence)
        self._judge_loss(block.fraction_lost / 256, round_trip, now)
        self._last_report = now
        self._sent_since_report = 0
        self._reported_at = self._sending
        self._await_report()

    def take_trip(self) -> Trip | None:
        """The reason, once for each time it tripped."""
        news, self._news = self._news, None
        return news

    def _judge_progress(self, highest: int) -> None:
        if highest != self._highest:
            self._has_advanced = self._has_advanced or self._highest is not None
            self._highest = highest
            self._stalled_from = self._sending
            self._stalled_reports = 0
            return
        self._stalled_reports += self._sent_since_report > 0
        stalled = self._sending - self._stalled_from
        if stalled >= self._limit and self._stalled_reports >= _REPORTS and self._has_advanced:
            self._trip(Trip.MEDIA_TIMEOUT)

    def _judge_loss(self, loss: float, round_trip: float | None, now: float) -> None:
        sent, seconds = self._sent_since_report, now - self._last_report
        if sent < _MIN_PACKETS or not seconds > 0:
            return
        unfair = round_trip is not None and sent / seconds > _RATE_FACTOR * fair_packet_rate(loss, round_trip)
        if not unfair and loss < _UNUSABLE_LOSS:
            self._bad_reports = 0
            return
        if not self._bad_reports:
            self._bad_since = self._last_report
        # One and a half intervals and more in one report: it, or we, were held up, and those behind it may come at once.
        # Such time is no evidence, and a round trip measured across it would let any rate look unfair.
        self._bad_since += max(0.0, seconds - self._limit / 2)
        self._bad_reports += 1
        if self._bad_reports >= _REPORTS and now - self._bad_since >= self._limit:
            self._trip(Trip.CONGESTION if unfair else Trip.MEDIA_UNUSABLE)

    def _trip(self, reason: Trip) -> None:
        if self.tripped is None:
            self.tripped = self._news = reason


def fair_packet_rate(loss: float, round_trip: float) -> float:
    """Packets a second of a TCP without timeouts at that loss and round trip in seconds."""
    return 1 / (max(round_trip, _MIN_ROUND_TRIP) * math.sqrt(2 * loss / 3)) if loss > 0 else math.inf

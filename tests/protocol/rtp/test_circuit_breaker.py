"""The circuit breaker of RFC 8083 in virtual time: what trips it, what does not, and what lets sending go on."""

from __future__ import annotations

import pytest

from protocol.rtp import CircuitBreaker, Trip
from protocol.rtp.breaker import fair_packet_rate
from protocol.rtp.rtcp import ReportBlock

INTERVAL = 5.0


class Sender:
    """Sends a packet every 20 ms while `talks`; the peer reports every `INTERVAL` seconds, as `lost` and `deaf` say."""

    def __init__(self, *, round_trip: float | None = 0.05) -> None:
        self.breaker = CircuitBreaker(INTERVAL)
        self.now = 1000.0
        self.round_trip = round_trip
        self.talks = self.reports = True
        self.deaf = False  # the highest sequence number stands still
        self.lost = 0.0
        self.highest = 0
        self.sent = 0
        self._next_report = self.now + INTERVAL
        self._step = 0

    def run(self, seconds: float) -> Sender:
        for _ in range(round(seconds / 0.02)):
            self._step += 1
            self.now = 1000.0 + self._step * 0.02
            if self.talks and self.breaker.tripped is None:
                self.breaker.packet_sent(self.now)
                self.sent += 1
            if self.now >= self._next_report:
                self._next_report += INTERVAL
                self.highest = self.highest if self.deaf else self.sent
                block = ReportBlock(1, int(self.lost * 256), 0, self.highest, 0, 0, 0)
                if self.reports:
                    self.breaker.report(block, self.round_trip, self.now)
        return self

    def seconds_until_trip(self, at_most: float = 60.0) -> float:
        start = self.now
        while self.breaker.tripped is None and self.now - start < at_most:
            self.run(0.02)
        return self.now - start


def test_a_call_in_good_health_never_trips():
    sender = Sender()
    sender.run(300)
    sender.talks = False
    sender.run(120)
    sender.talks = True
    sender.lost = 0.02
    sender.run(120)
    assert sender.breaker.tripped is None
    assert sender.breaker.take_trip() is None


def test_three_intervals_without_a_report_end_sending_and_the_next_report_begins_it_anew():
    sender = Sender()
    sender.run(20.0)
    sender.reports = False
    assert sender.seconds_until_trip() == pytest.approx(3 * INTERVAL, abs=0.1)
    assert sender.breaker.tripped is Trip.RTCP_TIMEOUT
    assert [sender.breaker.take_trip() for _ in range(2)] == [Trip.RTCP_TIMEOUT, None]
    sender.reports = True
    sender.run(INTERVAL)
    assert sender.breaker.tripped is None
    sender.run(60)
    assert sender.breaker.tripped is None


def test_who_asks_for_a_packet_of_ours_hears_us_though_his_reports_are_lost():
    sender = Sender()
    sender.run(20.0)
    sender.reports = False
    for _ in range(2):
        sender.run(10.0)
        sender.breaker.asked_for()
    assert sender.seconds_until_trip() == pytest.approx(3 * INTERVAL, abs=0.1)
    assert sender.breaker.take_trip() is Trip.RTCP_TIMEOUT
    sender.breaker.asked_for()
    assert sender.breaker.tripped is Trip.RTCP_TIMEOUT, "what was asked for has left before"


def test_asking_stands_in_for_reports_only_for_a_while():
    sender = Sender()
    sender.run(20.0)
    sender.reports = False
    seconds = 0.0
    while sender.breaker.tripped is None and seconds < 600:
        seconds += 1.0
        sender.run(1.0)
        sender.breaker.asked_for()
    assert seconds == pytest.approx(9 * INTERVAL, abs=1.1)


def test_asking_begins_no_timeout_for_a_peer_that_never_reported():
    sender = Sender()
    sender.reports = False
    for _ in range(100):
        sender.run(1.0)
        sender.breaker.asked_for()
    assert sender.breaker.tripped is None


def test_asking_for_packets_excuses_no_loss():
    sender = Sender()
    sender.lost = 0.6
    for _ in range(4):
        sender.run(5.0)
        sender.breaker.asked_for()
    assert sender.breaker.tripped is Trip.MEDIA_UNUSABLE
    sender.breaker.asked_for()
    assert sender.breaker.tripped is Trip.MEDIA_UNUSABLE


def test_after_a_timeout_a_report_that_knows_nothing_of_us_lets_us_try_once_more():
    """A peer tells only of sources it has heard since its last report, and we were silent."""
    sender = Sender()
    sender.run(20.0)
    sender.reports = False
    sender.seconds_until_trip()
    assert sender.breaker.take_trip() is Trip.RTCP_TIMEOUT
    sender.breaker.report_of_others()
    assert sender.breaker.tripped is None
    sender.reports = True  # now it hears us
    sender.run(60)
    assert sender.breaker.tripped is None
    sender.reports = False
    sender.seconds_until_trip()
    sender.breaker.report_of_others()
    for _ in range(3):  # but here it does not
        sender.run(4.9)
        sender.breaker.report_of_others()
    assert sender.seconds_until_trip() < 0.5
    assert sender.breaker.take_trip() is Trip.MEDIA_TIMEOUT
    sender.breaker.report_of_others()
    assert sender.breaker.tripped is Trip.MEDIA_TIMEOUT


def test_a_silent_agent_has_nothing_to_be_reported():
    sender = Sender()
    sender.run(20)
    sender.reports = sender.talks = False
    sender.run(600)
    sender.talks = True
    sender.run(14)
    assert sender.breaker.tripped is None
    sender.run(2)
    assert sender.breaker.tripped is Trip.RTCP_TIMEOUT


def test_a_client_that_never_reports_is_left_to_consent():
    sender = Sender()
    sender.reports = False
    sender.run(300)
    assert sender.breaker.tripped is None


def test_a_client_whose_reports_never_count_anything_is_left_to_consent_too():
    sender = Sender(round_trip=None)
    sender.deaf = True
    sender.run(300)
    assert sender.breaker.tripped is None


def test_reports_whose_highest_sequence_number_stands_still_end_sending_for_good():
    sender = Sender()
    sender.run(20)
    sender.deaf = True
    assert 3 * INTERVAL <= sender.seconds_until_trip() <= 4 * INTERVAL
    assert sender.breaker.tripped is Trip.MEDIA_TIMEOUT
    sender.run(30)
    assert sender.breaker.tripped is Trip.MEDIA_TIMEOUT


@pytest.mark.parametrize(("lost", "round_trip", "trips"), [(0.4, 0.4, True), (0.4, 0.3, False), (0.2, 0.6, True)])
def test_three_reports_of_loss_at_which_tcp_would_send_a_tenth_end_sending(lost: float, round_trip: float, trips: bool):
    sender = Sender(round_trip=round_trip)
    sender.run(20)
    sender.lost = lost
    taken = sender.seconds_until_trip()
    assert sender.breaker.tripped is (Trip.CONGESTION if trips else None)
    assert (taken == pytest.approx(3 * INTERVAL, abs=0.1)) == trips


def test_frequent_reports_of_a_short_outage_are_no_congestion():
    sender = Sender()
    sender.run(20)
    sender.reports = False
    for _ in range(28):  # every half second, for fourteen
        sender.run(0.5)
        sender.breaker.report(ReportBlock(1, 230, 0, sender.sent, 0, 0, 0), 0.05, sender.now)
        assert sender.breaker.tripped is None
    sender.run(0.5)
    sender.breaker.report(ReportBlock(1, 0, 0, sender.sent, 0, 0, 0), 0.05, sender.now)
    assert sender.breaker.tripped is None


@pytest.mark.parametrize("bad_before", [0, 1])
def test_a_process_that_was_stopped_and_then_sends_and_hears_all_at_once_ends_no_call(bad_before: int):
    sender = Sender()
    sender.run(20)
    sender.lost = 0.02
    if bad_before:
        sender.round_trip = 15.0
        sender.run(INTERVAL)
    now = sender.now + 16.0
    for _ in range(4):  # each turn sends what gathered, and reads one of the reports that wait
        now += 0.01
        for _ in range(250):
            sender.sent += 1
            sender.breaker.packet_sent(now)
        sender.breaker.report(ReportBlock(1, 5, 0, sender.sent, 0, 0, 0), 15.0, now)
    assert sender.breaker.tripped is None


def test_two_bad_reports_and_a_good_one_are_no_congestion():
    sender = Sender()
    sender.run(20)
    for _ in range(10):
        sender.lost = 0.6
        sender.run(2 * INTERVAL)
        sender.lost = 0.0
        sender.run(INTERVAL)
    assert sender.breaker.tripped is None


@pytest.mark.parametrize("round_trip", [None, 0.0, 0.05])
def test_half_of_all_lost_for_three_intervals_ends_sending_whatever_the_round_trip(round_trip: float | None):
    sender = Sender(round_trip=round_trip)
    sender.run(20)
    sender.lost = 0.49
    sender.run(60)
    assert sender.breaker.tripped is None
    sender.lost = 0.5
    assert sender.seconds_until_trip() == pytest.approx(3 * INTERVAL, abs=0.1)
    assert sender.breaker.tripped is Trip.MEDIA_UNUSABLE


def test_a_few_words_of_which_most_were_lost_decide_nothing():
    sender = Sender()
    sender.run(20)
    sender.lost = 0.9
    for _ in range(20):
        sender.talks = True
        sender.run(0.4)
        sender.talks = False
        sender.run(INTERVAL)
    assert sender.breaker.tripped is None


def test_another_path_is_judged_afresh():
    sender = Sender()
    sender.run(20)
    sender.lost = 0.9
    sender.seconds_until_trip()
    sender.breaker.reset()
    sender.run(10)
    assert sender.breaker.tripped is None, "what was bad before does not count"
    sender.lost = 0.0
    sender.run(60)
    assert sender.breaker.tripped is None
    sender.deaf = True
    sender.seconds_until_trip()
    sender.breaker.reset()
    sender.run(10)
    assert sender.breaker.tripped is None


@pytest.mark.parametrize(("loss", "round_trip", "packets"), [(0.01, 0.1, 122.5), (0.1, 0.1, 38.73), (0.5, 0.05, 34.64)])
def test_the_fair_rate_is_that_of_a_tcp_without_timeouts(loss: float, round_trip: float, packets: float):
    assert fair_packet_rate(loss, round_trip) == pytest.approx(packets, rel=0.01)

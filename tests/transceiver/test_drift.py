"""Clocks that do not run alike, for an hour of virtual time: nothing gathers, nothing runs out, nothing is torn."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import pytest

from protocol.agentlink import PlayedReason
from protocol.codecs import OPUS
from protocol.rtp import RtpPacket
from transceiver.media import PACE_SECONDS, Downlink, OutgoingFrame, Uplink


@dataclass
class Hour:
    deepest: float = 0.0  # seconds that waited, at the end of any minute but the first
    sent: int = 0
    markers: int = 0
    holes: int = 0
    largest_step: float = 0.0  # between two frames that leave, in seconds


def speak_for(seconds: float, ppm: float, *, jitter: float = 0.0, by_lane: bool = False) -> tuple[Hour, Downlink]:
    """An agent that sends a frame each 20 ms of its own clock; the pacer ticks by ours."""
    chance = random.Random(ppm + jitter)
    downlink, hour = Downlink(OPUS, 0), Hour()
    frame, tick, last, last_at = 0, 0, -960, 0.0
    arrival = 0.0
    while True:
        pace = tick * PACE_SECONDS
        now = min(arrival, pace)
        if now >= seconds:
            return hour, downlink
        leaving: list[OutgoingFrame] = []
        if arrival <= pace:
            timestamp = downlink.follow(frame * 960, OPUS.silence, now) if by_lane else -1
            if timestamp >= 0:
                leaving = [OutgoingFrame(OPUS.silence, timestamp, False)]
            else:
                downlink.push(frame * 960, OPUS.silence, now)
                leaving = downlink.take_due(now)
            frame += 1
            arrival = max(arrival, frame * 0.02 / (1 + ppm * 1e-6) + jitter * chance.random())
        else:
            leaving = downlink.take_due(now)
            tick += 1
            if now > 60 and tick % 50 == 0:
                hour.deepest = max(hour.deepest, downlink._buffered / 48_000)
        for sent in leaving:
            hour.sent += 1
            hour.markers += sent.marker
            hour.holes += sent.timestamp != (last + 960 & 0xFFFFFFFF)
            last = sent.timestamp
            hour.largest_step = max(hour.largest_step, now - last_at)
            last_at = now


def check(hour: Hour, downlink: Downlink, seconds: float, ppm: float) -> None:
    assert not downlink.drops
    assert hour.markers == 1, "one talkspurt"
    assert hour.holes == 0
    assert hour.deepest < 0.080
    assert abs(hour.sent - seconds * 50 * (1 + ppm * 1e-6)) <= 5
    assert hour.largest_step < 0.080


@pytest.mark.slow
@pytest.mark.parametrize(("ppm", "by_lane"), [(1000, False), (-1000, True)])
def test_for_five_minutes_an_agent_with_another_clock_is_followed(ppm: float, by_lane: bool):
    hour, downlink = speak_for(300, ppm, jitter=0.02, by_lane=by_lane)
    check(hour, downlink, 300, ppm)


@pytest.mark.thorough
@pytest.mark.parametrize("ppm", [-1000, -100, 0, 100, 1000])
@pytest.mark.parametrize("jitter", [0.0, 0.03])
def test_for_an_hour_an_agent_with_another_clock_is_followed(ppm: float, jitter: float):
    hour, downlink = speak_for(3600, ppm, jitter=jitter)
    check(hour, downlink, 3600, ppm)


def test_who_speaks_ahead_of_time_is_paced_by_our_clock_alone():
    downlink = Downlink(OPUS, 0)
    sent = [0] * 61
    frame = 0
    for tick in range(60 * 50):
        now = tick * PACE_SECONDS
        while downlink._buffered < 3 * 48_000 and frame < 60 * 50 + 200:
            downlink.push(frame * 960, OPUS.silence, now)
            frame += 1
        sent[int(now)] += len(downlink.take_due(now))
    assert set(sent[1:59]) == {50}
    assert downlink._tick == 1 / 48_000


@pytest.mark.parametrize("held_up", [0.19, 0.3, 0.45])
def test_what_a_hold_up_on_the_way_left_as_delay_is_taken_back_within_a_minute(held_up: float):
    downlink = Downlink(OPUS, 0)
    number = 0
    for tick in range(90 * 50):
        now = tick * PACE_SECONDS
        downlink.take_due(now)
        while number * 0.02 <= now and not 20.0 <= now < 20.0 + held_up:
            downlink.push(number * 960, OPUS.silence, now)
            number += 1
        downlink.take_due(now)
        if now > 80.0:
            assert downlink._buffered <= 3 * 960
    assert not downlink.drops


@pytest.mark.slow
@pytest.mark.parametrize("by_lane", [False, True])
@pytest.mark.parametrize("held_up", [0.25, 0.45, 0.6, 0.9, 1.5])
@pytest.mark.parametrize("at", [0.5, 2.0, 5.0, 9.9, 15.0])
def test_so_it_is_whenever_the_hold_up_came_and_however_long_it_was(at: float, held_up: float, by_lane: bool):
    """In the first ten seconds what it left had become the lead to keep; of more than half a second it was no live stream."""
    assert waiting_after([(at, held_up)], at + held_up + 110, by_lane) <= 0.065


@pytest.mark.slow
def test_hold_ups_that_follow_each_other_are_taken_back_together():
    assert waiting_after([(3.0, 0.4), (5.0, 0.4), (30.0, 0.6)], 150, False) <= 0.065


def waiting_after(held_up: list[tuple[float, float]], seconds: float, by_lane: bool) -> float:
    """How much waits in the end of a live stream with hold-ups: (when, how long)."""
    downlink = Downlink(OPUS, 0)
    number = 0
    for tick in range(int(seconds * 50)):
        now = tick * PACE_SECONDS + 0.003
        if not any(at <= now < at + long for at, long in held_up):
            while number * 0.02 <= now:
                if not by_lane or downlink.follow(number * 960, OPUS.silence, now) < 0:
                    downlink.push(number * 960, OPUS.silence, now)
                number += 1
        downlink.take_due(now)
    assert not downlink.drops
    return downlink._buffered / 48_000


def test_an_agent_that_stays_ahead_of_time_is_not_hurried_after_for_long():
    """A word in real time, a pause as of a hold-up, and then a synthesiser that keeps a lead of 0.9 s."""
    downlink = Downlink(OPUS, 0)
    number = 0
    for tick in range(400 * 50):
        now = tick * PACE_SECONDS
        lead = 0.0 if now < 2.0 else 0.9
        if not 2.0 <= now < 2.5:
            while downlink._buffered < max(1, lead * 48_000):
                downlink.push(number * 960, OPUS.silence, now)
                number += 1
        downlink.take_due(now)
    assert downlink._follower.correction == 0.0


def test_a_burst_at_the_beginning_is_no_lead_to_keep():
    """A chime in one go, then an echo in real time: nothing is drawn out to wait as long as the chime did."""
    downlink = Downlink(OPUS, 0)
    for number in range(20):
        downlink.push(number * 960, OPUS.silence, 0.0)
    number = 20
    for tick in range(60 * 50):
        now = tick * PACE_SECONDS
        if now >= 1.0:
            downlink.push(number * 960, OPUS.silence, now)
            number += 1
        downlink.take_due(now)
        assert downlink._follower.correction > -1e-6
    assert downlink._buffered <= 960


def test_a_stream_that_comes_ever_later_and_then_in_time_again_leaves_no_delay():
    """As of a machine that has too much to do for a while: nothing is silent, but all comes a second late in the end."""
    downlink = Downlink(OPUS, 0)
    arrivals = [
        number * 0.02 + max(0.0, min((number - 500) * 0.004, 1.2, (1000 - number) * 0.01)) for number in range(1500)
    ]
    number = sent = 0
    for tick in range(30 * 100):
        now = tick * 0.01
        while number < len(arrivals) and arrivals[number] <= now:
            if downlink.follow(number * 960, OPUS.silence, now) >= 0:
                sent += 1
            else:
                downlink.push(number * 960, OPUS.silence, now)
            number += 1
        sent += len(downlink.take_due(now))
        if now > 21.0:
            assert number - sent <= 2
        report = downlink.take_report()
        assert report is None or report.reason is not PlayedReason.DRAINED or now > arrivals[-1]
    assert not downlink.drops


def test_a_stall_is_no_drift():
    downlink = Downlink(OPUS, 0)
    for number in range(3000):
        arrival = number * 0.02 + (0.15 if number > 1500 else 0.0)
        downlink.push(number * 960, OPUS.silence, arrival)
        downlink.take_due(arrival)
    assert abs(downlink._follower.correction) <= 0.003
    assert math.isclose(downlink._tick * 48_000, 1.0, abs_tol=0.003)
    assert not downlink.drops


@pytest.mark.thorough
@pytest.mark.parametrize("ppm", [-1000, 1000])
def test_for_an_hour_a_caller_with_another_clock_is_heard_as_he_sent_it(ppm: float):
    uplink = Uplink(111, 48_000, nack=True)
    for number in range(3600 * 50):
        now = number * 0.02 / (1 + ppm * 1e-6)
        timestamp = 0xFFFF_0000 + number * 960 & 0xFFFFFFFF
        uplink.push(RtpPacket(False, 111, number & 0xFFFF, timestamp, 7, payload=b"\x78x"), now)
        (record,) = uplink.take(1)
        assert record.rtp_time == timestamp
        assert record.flags == 0
    assert not uplink.counters
    assert not uplink.drops

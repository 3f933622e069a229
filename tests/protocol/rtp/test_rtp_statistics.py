"""RFC 3550's loss and jitter arithmetic against a reference that works on the unwrapped numbers."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.rtp import ReceiverStatistics, SenderStatistics
from protocol.rtp.rtcp import SenderReport

RATE = 48000


def feed(statistics: ReceiverStatistics, extended: list[int], arrivals: list[float] | None = None) -> None:
    for i, number in enumerate(extended):
        now = arrivals[i] if arrivals else i * 0.02
        statistics.receive(number & 0xFFFF, number * 960 & 0xFFFFFFFF, 80, now)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    first=st.sampled_from([0, 1, 65_400, 65_535]),
    fates=st.lists(st.sampled_from(["sent"] * 6 + ["lost", "doubled", "delayed"]), min_size=1, max_size=300),
    cut=st.integers(0, 300),
)
def test_loss_is_what_a_count_of_unwrapped_numbers_gives(first: int, fates: list[str], cut: int):
    numbers: list[int] = []
    delayed: list[int] = []
    for number, fate in enumerate(fates, first):
        numbers += {"sent": [number], "doubled": [number, number]}.get(fate, [])
        if fate == "delayed":
            delayed.append(number)
        if delayed and (len(delayed) > 3 or number - delayed[0] > 90):  # less than RFC 3550's MAX_MISORDER
            numbers += delayed
            delayed = []
    numbers = [number for number in numbers if number >= numbers[0]]  # what came before the first is not expected
    if not numbers:
        return
    numbers = [number - (numbers[0] & ~0xFFFF) for number in numbers]  # cycles are counted from the first packet on
    statistics = ReceiverStatistics(1, RATE)
    head, tail = numbers[:cut], numbers[cut:]
    feed(statistics, head)
    before = statistics.report_block(1.0)
    feed(statistics, tail)
    block = statistics.report_block(2.0)

    def expected(part: list[int]) -> int:
        return max(part) - numbers[0] + 1 if part else 0

    assert block.highest_sequence == max(numbers)
    assert before.packets_lost == expected(head) - len(head)
    assert block.packets_lost == expected(numbers) - len(numbers)
    interval = expected(numbers) - expected(head)
    lost = interval - len(tail)
    assert block.fraction_lost == (min(255, int(Fraction(lost, interval) * 256)) if interval and lost > 0 else 0)


def test_many_wraps_are_counted():
    statistics = ReceiverStatistics(1, RATE)
    feed(statistics, list(range(65_000, 65_000 + 4 * 65_536, 1000)))
    assert statistics.highest_sequence == 65_000 + 4 * 65_536 // 1000 * 1000
    assert statistics.report_block(0).fraction_lost == 255


def test_duplicates_make_the_loss_negative_and_the_fraction_zero():
    statistics = ReceiverStatistics(1, RATE)
    feed(statistics, [1, 2, 2, 2, 3])
    block = statistics.report_block(1.0)
    assert (block.packets_lost, block.fraction_lost) == (-2, 0)
    assert (statistics.packets_received, statistics.octets_received) == (5, 400)


def test_one_stray_number_far_away_changes_nothing_and_two_in_a_row_restart():
    statistics = ReceiverStatistics(1, RATE)
    feed(statistics, [10, 11, 30_000, 12])
    assert (statistics.highest_sequence, statistics.packets_lost) == (12, 0)
    feed(statistics, [40_000, 40_001, 40_002])
    assert (statistics.highest_sequence, statistics.packets_lost) == (40_002, 0)


def test_cumulative_loss_is_clamped_to_24_bits():
    statistics = ReceiverStatistics(1, RATE)
    feed(statistics, list(range(0, 9_000_000, 2999)))
    assert statistics.packets_lost == 0x7FFFFF
    assert statistics.report_block(0).packets_lost == 0x7FFFFF


@pytest.mark.parametrize("start", [0, 0xFFFFFFFF - 100 * 960])
def test_jitter_follows_the_formula_of_section_6_4_1(start: int):
    chance = random.Random(6)
    statistics = ReceiverStatistics(1, RATE)
    reference, previous = 0.0, None
    for i in range(400):
        arrival = 1000 + i * 0.02 + chance.uniform(0, 0.03)
        statistics.receive(i, start + i * 960 & 0xFFFFFFFF, 80, arrival)
        transit = arrival * RATE - (start + i * 960)  # the timestamp not wrapped
        if previous is not None:
            reference += (abs(transit - previous) - reference) / 16
        previous = transit
    assert statistics.jitter * RATE == pytest.approx(reference, abs=3)
    assert statistics.report_block(0).jitter == pytest.approx(reference, abs=3)


def test_an_even_stream_has_no_jitter_and_a_silence_adds_none():
    statistics = ReceiverStatistics(1, RATE)
    for sequence, ticks in enumerate([0, 1, 2, 3, 23, 43, 44, 45]):  # DTX: the timestamp goes on with the clock
        statistics.receive(sequence, ticks * 960, 80, ticks * 0.02)
    assert statistics.jitter < 2 / RATE


def test_packets_of_one_key_press_share_a_timestamp_and_are_no_jitter():
    statistics = ReceiverStatistics(1, RATE)
    for sequence in range(50):
        statistics.receive(sequence, sequence * 960, 80, sequence * 0.02)
    for sequence in range(50, 100):  # a second of telephone-event packets, all with the time of its start
        statistics.receive(sequence, 50 * 960, 4, sequence * 0.02)
    for sequence in range(100, 110):
        statistics.receive(sequence, sequence * 960, 80, sequence * 0.02)
    assert statistics.jitter < 2 / RATE


def test_a_capture_clock_that_jumps_is_no_jitter():
    statistics = ReceiverStatistics(1, RATE)
    for sequence in range(100):
        offset = 0 if sequence < 50 else 0x70000000
        statistics.receive(sequence, sequence * 960 + offset, 80, sequence * 0.02)
    assert statistics.jitter < 2 / RATE


def test_a_block_tells_when_the_last_sender_report_came():
    statistics = ReceiverStatistics(7, RATE)
    feed(statistics, [1])
    assert statistics.report_block(1.0).last_sender_report == 0
    assert statistics.report_block(1.0).delay_since_last_sender_report == 0
    statistics.sender_report(SenderReport(7, 0x1111_2222_3333_4444, 0, 0, 0), now=5.0)
    block = statistics.report_block(6.5)
    assert block.last_sender_report == 0x2222_3333
    assert block.delay_since_last_sender_report == 98_304  # 1.5 s


def test_a_sender_report_reckons_the_rtp_time_on_to_its_own_instant():
    statistics = SenderStatistics(9, RATE)
    statistics.send(0xFFFFFF00, 80, 10.0)
    statistics.send(0xFFFFFF00 + 960 & 0xFFFFFFFF, 100, 10.02)
    report = statistics.sender_report(1 << 40, 10.07)
    assert report.rtp_time == 0xFFFFFF00 + 960 + 2400 & 0xFFFFFFFF
    assert (report.packet_count, report.octet_count, report.ntp_time, report.ssrc) == (2, 180, 1 << 40, 9)

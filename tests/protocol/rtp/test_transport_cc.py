"""Transport-wide feedback: the wire, and what is told when."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import DecodeError, LocalError
from protocol.rtp import ArrivalLog
from protocol.rtp.rtcp import TransportFeedback, read_transport_feedback_untrusted

steps = st.one_of(st.none(), st.integers(0, 300), st.integers(-0x8000, 0x7FFF))


@settings(max_examples=300)
@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFF), st.integers(0, 255), st.lists(steps, max_size=120))
def test_what_is_written_is_read_back(base: int, reference: int, count: int, deltas: list[int | None]):
    arrivals: list[int | None] = []
    ticks = 0
    for delta in deltas:
        ticks += delta or 0
        arrivals.append(None if delta is None else ticks)
    feedback = TransportFeedback(base, reference, count, tuple(arrivals))
    information = feedback.information()
    assert len(information) % 4 == 0
    assert read_transport_feedback_untrusted(information) == feedback


@given(st.lists(st.tuples(st.sampled_from([None, 1, 1000]), st.integers(1, 400)), max_size=8))
def test_long_runs_are_short_on_the_wire(runs: list[tuple[int | None, int]]):
    ticks, arrivals = 0, []
    for step, length in runs:
        for _ in range(length):
            ticks += step or 0
            arrivals.append(None if step is None else ticks)
    feedback = TransportFeedback(1, 2, 3, tuple(arrivals[:2048]))
    information = feedback.information()
    received = [arrival for arrival in feedback.arrivals if arrival is not None]
    assert len(information) <= 8 + 2 * len(received) + 2 * (len(runs) + len(arrivals) // 7 + 1) + 3
    assert read_transport_feedback_untrusted(information) == feedback


@given(st.binary(max_size=200))
def test_any_bytes_give_feedback_or_a_decode_error(data: bytes):
    try:
        feedback = read_transport_feedback_untrusted(data)
    except DecodeError:
        return
    assert len(feedback.arrivals) <= 2048


def test_the_form_is_that_of_the_draft():
    # One received 1.5 ms after the reference time, one lost, one 2 ms after the first, one 1 ms before that.
    feedback = TransportFeedback(0x1234, 5, 7, (6, None, 14, 10))
    assert feedback.information().hex() == "12340004" + "00000507" + "d180" + "06" + "08" + "fffc" + "0000"
    with pytest.raises(LocalError):
        TransportFeedback(0, 0, 0, (0, 40_000)).information()
    for broken in (
        "",
        "0000000100000000",
        "0000000100000000" + "0000",
        "0000ffff00000000" + "7fff",
        "00000001" + "00000000" + "6001",
    ):
        with pytest.raises(DecodeError):
            read_transport_feedback_untrusted(bytes.fromhex(broken))


def told(feedbacks: list[TransportFeedback]) -> dict[int, float | None]:
    """Sequence number → when it came, in seconds."""
    found: dict[int, float | None] = {}
    for feedback in feedbacks:
        again = read_transport_feedback_untrusted(feedback.information())
        for number, ticks in enumerate(again.arrivals, again.base_sequence):
            found[number & 0xFFFF] = None if ticks is None else (again.reference_time * 256 + ticks) / 4000
    return found


def test_four_times_a_second_the_packets_since_the_last_time_are_told_with_those_that_did_not_come():
    log = ArrivalLog()
    now, heard, taken = 100.0, {}, []
    for number in range(65_500, 65_700):
        now += 0.02
        if number % 10 == 3:
            continue
        if log.record(number & 0xFFFF, now):
            taken.append((now, told(log.take(now))))
        heard[number & 0xFFFF] = now
    assert 14 <= len(taken) <= 17
    everything: dict[int, float | None] = {}
    for _, feedback in taken:
        assert not set(everything) & set(feedback), "nothing is told twice"
        everything |= feedback
    numbers = [number & 0xFFFF for number in range(65_500, 65_500 + len(everything))]
    assert sorted(everything) == sorted(numbers)
    for number, when in everything.items():
        if number in heard:
            assert when == pytest.approx(heard[number], abs=0.0003)
        else:
            assert when is None


def test_a_packet_that_comes_late_is_told_again_with_its_neighbours():
    log = ArrivalLog()
    assert log.record(1, 10.0)
    assert told(log.take(10.0)) == {1: 10.0}
    for number in (2, 4, 5):
        log.record(number, 10.05)
    assert told(log.take(10.1)) == {2: 10.05, 3: None, 4: 10.05, 5: 10.05}
    log.record(3, 10.15)
    log.record(6, 10.16)
    assert told(log.take(10.2)) == {3: 10.15, 4: 10.05, 5: 10.05, 6: 10.16}


def test_late_packets_alone_make_nothing_unheard_that_was_told():
    log = ArrivalLog()
    for number in range(1, 7):
        log.record(number, 10.0)
    log.take(10.0)
    log.record(3, 10.3)  # once more
    log.take(10.3)
    log.record(7, 10.6)
    assert told(log.take(10.6)) == {7: 10.6}


@pytest.mark.parametrize("step", [-1, -2, -300, 0x7F00, -0x7F00])
def test_numbers_that_only_go_back_or_far_ahead_cost_no_more_than_others(step: int):
    log, number, kept = ArrivalLog(), 0, 0
    for at in range(20_000):
        number += 0x7F00 if at < 2000 else step
        if log.record(number & 0xFFFF, 10.0 + at / 1000):
            assert 1 <= sum(len(feedback.arrivals) for feedback in log.take(10.0 + at / 1000)) <= 256
        kept = max(kept, len(log._reported))
    assert kept <= 256


def test_a_pause_of_seconds_needs_two_feedbacks_and_a_jump_of_the_numbers_tells_of_no_loss_without_end():
    log = ArrivalLog()
    log.record(1, 10.0)
    log.record(2, 30.0)
    feedbacks = log.take(30.0)
    assert len(feedbacks) == 2
    assert told(feedbacks) == {1: 10.0, 2: 30.0}
    log.record(20_000, 31.0)
    assert len(told(log.take(31.0))) == 256
    assert log.take(32.0) == []


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.floats(0, 30)), max_size=150))
def test_whatever_numbers_come_what_is_kept_and_told_is_bounded(packets: list[tuple[int, float]]):
    log, now = ArrivalLog(), 1000.0
    for number, pause in packets:
        now += pause
        if log.record(number, now):
            feedbacks = log.take(now)
            assert sum(len(feedback.arrivals) for feedback in feedbacks) <= 256
            for feedback in feedbacks:
                assert len(feedback.information()) < 1100
        assert len(log._noted) <= 64
        assert len(log._reported) <= 256


def test_numbers_in_turns_across_a_pause_bring_three_feedbacks_at_once_at_most():
    log = ArrivalLog()
    for number in range(0, 128, 2):
        log.record(number, 1.0)
    assert len(log.take(1.0)) == 1
    for number in range(1, 128, 2):
        log.record(number, 100.0)
    told = log.take(100.0)
    assert len(told) == 3
    assert told[-1].base_sequence + len(told[-1].arrivals) == 128
    assert [feedback.feedback_count for feedback in told] == [1, 2, 3]  # those that were not sent are not missed

"""The reorder buffer in virtual time: nothing waits in order, gaps are reported in time, the RTP time only grows."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.rtp import Frame, Gap, JitterBuffer, JitterConfig, RtpPacket

SSRC = 0x1234
TICK = 960


def packet(number: int, *, timestamp: int | None = None, ssrc: int = SSRC, payload: bytes | None = None, **more: int):
    return RtpPacket(
        marker=bool(more.get("marker", 0)),
        payload_type=more.get("payload_type", 111),
        sequence=number & 0xFFFF,
        timestamp=(number * TICK if timestamp is None else timestamp) & 0xFFFFFFFF,
        ssrc=ssrc,
        payload=b"%d" % number if payload is None else payload,
    )


def drain(buffer: JitterBuffer, now: float) -> list[Frame | Gap]:
    things = []
    while (thing := buffer.pop(now)) is not None:
        things.append(thing)
    return things


def names(things: list[Frame | Gap]) -> list[str]:
    """Frames by their payload, gaps by what is missing."""
    return [
        f"-{thing.packets}@{thing.sequence}" if isinstance(thing, Gap) else thing.payload.decode() for thing in things
    ]


def feed(buffer: JitterBuffer, *numbers: int, now: float = 0.0) -> list[str]:
    things = []
    for number in numbers:
        buffer.push(packet(number), now)
        things += drain(buffer, now)
    return names(things)


def test_frames_in_order_pass_at_once():
    buffer = JitterBuffer()
    for number in range(65_530, 65_545):
        assert feed(buffer, number, now=number * 0.02) == [str(number)]
        assert buffer.next_timeout() == math.inf
    assert not buffer.counters


def test_frames_behind_a_gap_wait_and_the_missing_one_releases_them():
    buffer = JitterBuffer()
    assert feed(buffer, 1, 3, 4) == ["1"]
    assert feed(buffer, 2, now=0.03) == ["2", "3", "4"]
    assert buffer.next_timeout() == math.inf
    assert not buffer.counters


def test_a_gap_is_reported_when_it_was_known_for_the_maximum_delay():
    buffer = JitterBuffer(JitterConfig(max_delay=0.060))
    feed(buffer, 1)
    feed(buffer, 4, now=1.000)
    feed(buffer, 5, now=1.020)
    assert buffer.next_timeout() == pytest.approx(1.060)
    assert drain(buffer, 1.059) == []
    assert names(drain(buffer, 1.060)) == ["-2@2", "4", "5"]
    assert buffer.next_timeout() == math.inf
    assert buffer.counters == {"lost": 2}


def test_two_gaps_have_their_own_times():
    buffer = JitterBuffer(JitterConfig(max_delay=0.060))
    feed(buffer, 1)
    feed(buffer, 3, now=1.00)
    feed(buffer, 5, now=1.04)
    assert names(drain(buffer, 1.07)) == ["-1@2", "3"]
    assert buffer.next_timeout() == pytest.approx(1.10)
    assert names(drain(buffer, 1.10)) == ["-1@4", "5"]


def test_evidence_of_a_gap_counts_from_the_first_packet_beyond_it():
    buffer = JitterBuffer(JitterConfig(max_delay=0.060))
    feed(buffer, 1)
    feed(buffer, 5, now=1.00)
    feed(buffer, 3, now=1.05)
    assert names(drain(buffer, 1.06)) == ["-1@2", "3", "-1@4", "5"]


def with_copies(*numbers: int, **bounds: float) -> tuple[JitterBuffer, list[int]]:
    """Packets of these numbers carry a copy of the one before; and the numbers about which the buffer asked."""
    asked = []

    def carries_copy(behind: RtpPacket) -> bool:
        asked.append(behind.sequence)
        return behind.sequence in numbers

    return JitterBuffer(JitterConfig(**bounds), carries_copy=carries_copy), asked  # type: ignore[arg-type]


def test_a_packet_whose_copy_has_come_is_waited_for_no_longer_than_one_out_of_order():
    buffer, _ = with_copies(3)
    feed(buffer, 1)
    assert feed(buffer, 3, now=1.0) == []
    assert buffer.next_timeout() == pytest.approx(1.020)
    assert names(drain(buffer, 1.021)) == ["-1@2", "3"]
    assert feed(buffer, 2, now=1.022) == []
    assert buffer.counters == {"lost": 1, "late": 1}


def test_a_packet_out_of_order_is_preferred_to_its_copy():
    buffer, _ = with_copies(3)
    feed(buffer, 1)
    feed(buffer, 3, now=1.0)
    assert feed(buffer, 2, now=1.019) == ["2", "3"]
    assert not buffer.counters


def test_a_copy_that_does_not_stand_behind_the_first_gap_shortens_nothing():
    buffer, _ = with_copies(4, 7, max_delay=0.060)
    feed(buffer, 1)
    feed(buffer, 4, now=1.000)  # two are missing, and it has one of them
    feed(buffer, 7, now=1.010)
    assert buffer.next_timeout() == pytest.approx(1.060)
    assert feed(buffer, 3, 6, now=1.030) == []
    assert buffer.next_timeout() == pytest.approx(1.060), "the copy was of one that is there"
    assert feed(buffer, 2, now=1.031) == ["2", "3", "4"]


def test_a_copy_behind_a_later_gap_counts_once_that_gap_is_the_first():
    buffer, _ = with_copies(5, max_delay=0.060)
    feed(buffer, 1)
    feed(buffer, 3, now=1.000)
    feed(buffer, 5, now=1.020)
    assert names(drain(buffer, 1.060)) == ["-1@2", "3", "-1@4", "5"]


def test_whether_there_is_a_copy_is_asked_only_about_the_packet_behind_a_gap():
    buffer, asked = with_copies()
    feed(buffer, 1, 2, 3, 4, 7, 8, 9, 11)
    assert asked == [7, 11]


def test_without_delay_gaps_are_reported_at_once():
    assert feed(JitterBuffer(JitterConfig(max_delay=0.0)), 1, 3, 4, 2) == ["1", "-1@2", "3", "4"]


def test_late_and_duplicate_packets_are_dropped_and_told_apart():
    buffer = JitterBuffer()
    feed(buffer, 1, 2, 5, 5)
    assert names(drain(buffer, 1.0)) == ["-2@3", "5"]
    assert feed(buffer, 3, 2, 3, 5, now=1.0) == []
    assert buffer.counters == {"lost": 2, "late": 1, "duplicate": 4}
    assert feed(buffer, 6, now=1.0) == ["6"]


def test_an_old_row_of_packets_does_not_turn_the_stream_back():
    buffer = JitterBuffer()
    feed(buffer, *range(500))
    assert feed(buffer, *range(100, 120), 500) == ["500"]


def test_a_full_buffer_gives_its_gap_up_early_and_loses_nothing():
    buffer = JitterBuffer(JitterConfig(capacity=4))
    assert feed(buffer, 1, 3, 4, 5, 6) == ["1"]
    assert feed(buffer, 7) == ["-1@2", "3", "4", "5", "6", "7"]
    assert buffer.counters == {"lost": 1, "overflow": 1}


def test_what_nobody_takes_is_bounded_and_the_oldest_goes():
    buffer = JitterBuffer(JitterConfig(capacity=4))
    for number in range(100):
        buffer.push(packet(number), 0.0)
    assert names(drain(buffer, 0.0)) == [str(number) for number in range(92, 100)]
    assert buffer.counters == {"unread": 92}


def test_a_silence_without_missing_numbers_is_no_loss_and_its_time_is_kept():
    buffer = JitterBuffer()
    frames = []
    for sequence, ticks in enumerate([0, 1, 21, 41, 541, 542]):  # the fifth after ten seconds of silence
        buffer.push(packet(sequence, timestamp=ticks * TICK), ticks * 0.02)
        frames += drain(buffer, ticks * 0.02)
    assert [frame.rtp_time // TICK for frame in frames] == [0, 1, 21, 41, 541, 542]
    assert not buffer.counters
    assert not any(frame.marker for frame in frames)


def test_the_rtp_time_goes_on_through_wraps_of_the_timestamp():
    buffer = JitterBuffer()
    start = (1 << 32) - 3 * TICK
    frames = []
    for number in range(10):
        buffer.push(packet(number, timestamp=start + number * TICK), number * 0.02)
        frames += drain(buffer, number * 0.02)
    assert [frame.rtp_time for frame in frames] == [start + number * TICK for number in range(10)]


def test_another_ssrc_resets_the_sequence_and_the_time_goes_on_with_our_clock():
    buffer = JitterBuffer()
    feed(buffer, 1, 2, 4, now=1.0)
    buffer.push(packet(40_000, ssrc=9, timestamp=0), 1.5)
    things = drain(buffer, 1.5)
    assert names(things) == ["-1@3", "4", "40000"]
    held, first = things[1], things[2]
    assert isinstance(held, Frame)
    assert isinstance(first, Frame)
    assert first.marker
    assert first.rtp_time == held.rtp_time + 24_000
    buffer.push(packet(40_001, ssrc=9, timestamp=TICK), 1.52)
    (second,) = drain(buffer, 1.52)
    assert isinstance(second, Frame)
    assert (second.rtp_time, second.marker) == (first.rtp_time + TICK, False)
    assert buffer.counters == {"lost": 1, "source_changed": 1}


def test_stragglers_of_the_ssrc_before_do_not_turn_it_back():
    buffer = JitterBuffer()
    feed(buffer, 1, now=1.0)
    buffer.push(packet(7, ssrc=9), 1.1)
    drain(buffer, 1.1)
    assert feed(buffer, 2, now=1.2) == []
    assert buffer.counters["straggler"] == 1
    assert feed(buffer, 3, now=4.0) == ["3"]  # later it is no straggler but the source come back
    assert buffer.counters["source_changed"] == 2


def test_a_clock_that_jumps_is_followed_by_our_own():
    buffer = JitterBuffer()
    times = []
    for number, timestamp in enumerate([100_000, 100_960, 3_000_000_000, 3_000_000_960, 5_000, 5_960]):
        buffer.push(packet(number, timestamp=timestamp), number * 0.02)
        times += [(thing.rtp_time, thing.marker) for thing in drain(buffer, number * 0.02) if isinstance(thing, Frame)]
    assert times == [(100_000 + TICK * number, number in (2, 4)) for number in range(6)]
    assert buffer.counters == {"clock_jump": 2}


def test_an_event_that_names_its_start_does_not_turn_the_time_back():
    buffer = JitterBuffer()
    frames = []
    stamps = [(111, 0), (111, 960), (101, 960), (101, 960), (101, 960), (111, 4800), (101, 960), (111, 5760)]
    for number, (kind, timestamp) in enumerate(stamps):
        buffer.push(packet(number, timestamp=timestamp, payload_type=kind), number * 0.02)
        frames += [thing for thing in drain(buffer, number * 0.02) if isinstance(thing, Frame)]
    assert [frame.rtp_time for frame in frames] == [0, 960, 960, 960, 960, 4800, 4800, 5760]
    assert [frame.payload_type for frame in frames] == [kind for kind, _ in stamps]


def test_packets_without_payload_fill_their_place_and_are_not_handed_on():
    buffer = JitterBuffer()
    buffer.push(packet(1), 0.0)
    buffer.push(packet(2, payload=b""), 0.0)
    buffer.push(packet(3), 0.0)
    assert names(drain(buffer, 0.0)) == ["1", "3"]
    assert buffer.counters == {"empty": 1}


def test_the_marker_of_the_sender_is_kept():
    buffer = JitterBuffer()
    buffer.push(packet(1, marker=1), 0.0)
    (frame,) = drain(buffer, 0.0)
    assert frame == Frame(TICK, b"1", True, 111, 1)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32),
    start=st.sampled_from([0, 65_450, 65_535]),
    max_delay=st.sampled_from([0.0, 0.06]),
    copies=st.booleans(),
)
def test_over_any_bad_network_order_is_kept_and_all_is_accounted_for(
    seed: int, start: int, max_delay: float, copies: bool
):
    chance = random.Random(seed)
    delays = [0.0, 0.0, 0.01, 0.05, 0.2]
    arrivals = [
        (number * 0.02 + chance.choice(delays), number)
        for number in range(start, start + 150)
        for _ in range(chance.choices([0, 1, 2], [1, 8, 1])[0])
    ]
    arrivals.sort()
    config = JitterConfig(max_delay=max_delay, capacity=8)
    buffer = JitterBuffer(config, carries_copy=lambda behind: copies and behind.sequence % 3 > 0)
    out: list[tuple[float, Frame | Gap]] = []
    came: dict[int, float] = {}
    for now, number in arrivals:
        while buffer.next_timeout() <= now:
            at = buffer.next_timeout()
            out += [(at, thing) for thing in drain(buffer, at)]
        came.setdefault(number, now)
        buffer.push(packet(number), now)
        out += [(now, thing) for thing in drain(buffer, now)]
    out += [(1e9, thing) for thing in drain(buffer, 1e9)]

    place = arrivals[0][1]
    last_time = -1
    for at, thing in out:
        if isinstance(thing, Gap):
            assert thing.sequence == place & 0xFFFF
            assert thing.packets > 0
            place += thing.packets
        else:
            assert thing.payload == b"%d" % place
            assert thing.rtp_time & 0xFFFFFFFF == place * TICK & 0xFFFFFFFF
            assert thing.rtp_time > last_time
            if at < 1e9:
                assert at <= came[place] + max_delay + 1e-9
            last_time = thing.rtp_time
            place += 1
    frames = sum(isinstance(thing, Frame) for _, thing in out)
    assert frames + buffer.counters["late"] + buffer.counters["duplicate"] == len(arrivals)
    assert buffer.counters["lost"] == sum(thing.packets for _, thing in out if isinstance(thing, Gap))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 0xFFFF),
            st.integers(0, 0xFFFFFFFF),
            st.sampled_from([1, 1, 1, 2, 3]),
            st.sampled_from([0.0, 0.01, 0.1, 3.0]),
        ),
        max_size=120,
    )
)
def test_whatever_an_authentic_peer_sends_the_bounds_hold_and_time_never_goes_back(
    script: list[tuple[int, int, int, float]],
):
    buffer = JitterBuffer(JitterConfig(capacity=8))
    now, last_time, in_hand = 0.0, -1, 0
    for sequence, timestamp, ssrc, pause in script:
        now += pause
        buffer.push(packet(sequence, timestamp=timestamp, ssrc=ssrc), now)
        in_hand += 1
        things = drain(buffer, now)
        in_hand -= sum(isinstance(thing, Frame) for thing in things)
        for thing in things:
            if isinstance(thing, Frame):
                assert thing.rtp_time >= last_time
                last_time = thing.rtp_time
        dropped = sum(buffer.counters[word] for word in ("late", "duplicate", "straggler"))
        assert 0 <= in_hand - dropped <= 8
        assert buffer.next_timeout() > now
    assert last_time <= 0xFFFFFFFF + (now + 10 * len(script) + 1) * 48_000

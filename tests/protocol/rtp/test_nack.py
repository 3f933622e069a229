"""Lost packets: named in a NACK, asked for while it helps, sent again within limits. All in virtual time."""

from __future__ import annotations

import gc
import math
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import DecodeError
from protocol.rtp import (
    Frame,
    FrameOrigin,
    Gap,
    JitterBuffer,
    JitterConfig,
    PathEstimate,
    RequestConfig,
    ResendBuffer,
    ResendRequests,
    RtcpReporter,
    RtpPacket,
)
from protocol.rtp.rtcp import (
    NACK_FORMAT,
    Feedback,
    ReceiverReport,
    RtcpType,
    SourceDescription,
    parse_rtcp_untrusted,
    read_nack_untrusted,
    serialize_rtcp,
    write_nack,
)

TICK = 0.02


def packet(number: int, payload: bytes | None = None) -> RtpPacket:
    number_bytes = b"%d" % number if payload is None else payload
    return RtpPacket(False, 111, number & 0xFFFF, number * 960 & 0xFFFFFFFF, 7, payload=number_bytes)


def buffer(
    round_trip: float | None = 0.04, jitter: float | None = 0.002, *, copies: bool = False, **requests: float
) -> JitterBuffer:
    """`copies`: each packet carries the audio of the one before, too."""
    config = JitterConfig(requests=RequestConfig(**requests))  # type: ignore[arg-type]
    return JitterBuffer(config, lambda: PathEstimate(round_trip, jitter), (lambda _: True) if copies else None)


def drain(jitter: JitterBuffer, now: float) -> list[Frame | Gap]:
    things = []
    while (thing := jitter.pop(now)) is not None:
        things.append(thing)
    return things


# The wire


@given(st.sets(st.integers(0, 0xFFFF), min_size=1, max_size=200), st.integers(0, 0xFFFF))
def test_a_nack_names_what_was_written_into_it(numbers: set[int], start: int):
    sequences = [start + number & 0xFFFF for number in sorted(numbers)]
    information = write_nack(sequences)
    assert len(information) <= 4 * len(sequences)
    assert list(read_nack_untrusted(information)) == sequences[: len(read_nack_untrusted(information))]
    if len(information) <= 4 * 32:
        assert list(read_nack_untrusted(information)) == sequences


def test_the_form_of_a_nack_is_that_of_rfc_4585():
    assert write_nack([0xFFFE, 0xFFFF, 1, 14]).hex() == "fffe8005"
    assert write_nack([0xFFFE, 15]).hex() == "fffe0000000f0000"
    for broken in (b"", b"\0", b"\0" * 6):
        with pytest.raises(DecodeError):
            read_nack_untrusted(broken)


@pytest.mark.parametrize("reduced", [False, True])
def test_feedback_is_compound_unless_reduced_size_was_agreed(reduced: bool):
    reporter = RtcpReporter(ssrc=1, cname="c", clock_rate=48_000, entropy=bytes, reduced_size=reduced)
    reporter.send_feedback(Feedback(RtcpType.RTPFB, NACK_FORMAT, 1, 7, write_nack([5])))
    packets = parse_rtcp_untrusted(reporter.poll()[0].data)
    kinds = [Feedback] if reduced else [ReceiverReport, SourceDescription, Feedback]
    assert [type(sent) for sent in packets] == kinds


def test_of_a_nack_the_numbers_are_kept_that_are_about_our_source_and_not_too_many():
    reporter = RtcpReporter(ssrc=1, cname="c", clock_rate=48_000, entropy=bytes)

    def nack(ssrc: int, information: bytes) -> bytes:
        return serialize_rtcp([Feedback(RtcpType.RTPFB, NACK_FORMAT, 7, ssrc, information)])

    reporter.receive_untrusted(nack(2, write_nack([1])), 0.0)
    assert reporter.take_nacked() == []
    reporter.receive_untrusted(nack(1, write_nack([1, 3])), 0.0)
    assert reporter.take_nacked() == [1, 3]
    for first in range(0, 20_000, 500):
        reporter.receive_untrusted(nack(1, write_nack(range(first, first + 500))), 0.0)
    assert len(reporter.take_nacked()) == 64
    reporter.receive_untrusted(nack(1, b""), 0.0)
    assert reporter.take_nacked() == []
    assert reporter.drops == {"rtcp_nack": 1}


# Asking


def test_a_missing_packet_is_asked_for_almost_at_once_and_again_after_a_round_trip():
    jitter = buffer()
    jitter.push(packet(1), 0.0)
    assert jitter.is_plain is False
    drain(jitter, 0.0)
    assert jitter.is_plain
    jitter.push(packet(4), 0.06)
    assert jitter.take_requests(0.06) == ()
    first = jitter.next_timeout()
    assert 0.06 < first <= 0.07
    assert jitter.take_requests(first) == (2, 3)
    assert jitter.take_requests(first) == ()
    second = jitter.next_timeout()
    assert first + 0.04 <= second <= first + 0.06
    assert jitter.take_requests(second) == (2, 3)
    assert jitter.counters["requested"] == 4


def test_what_was_asked_for_comes_in_its_place_and_says_so():
    jitter = buffer()
    for number in (1, 3):
        jitter.push(packet(number), number * TICK)
    jitter.take_requests(0.07)
    jitter.push(packet(4), 0.08)
    jitter.push(packet(2), 0.11)
    frames = drain(jitter, 0.11)
    assert [(frame.payload, frame.origin) for frame in frames if isinstance(frame, Frame)] == [
        (b"1", FrameOrigin.SENT),
        (b"2", FrameOrigin.RESENT),
        (b"3", FrameOrigin.SENT),
        (b"4", FrameOrigin.SENT),
    ]
    assert jitter.next_timeout() == math.inf
    assert jitter.counters == {"requested": 1, "recovered": 1}


def test_a_packet_out_of_order_is_not_asked_for_and_teaches_patience():
    jitter = buffer()
    patience = []
    for number in range(1, 200, 2):
        now = number * TICK
        jitter.push(packet(number + 1), now)
        patience.append(jitter.next_timeout() - now)
        jitter.take_requests(now + 0.004)
        jitter.push(packet(number), now + 0.004)
        assert all(
            isinstance(thing, Frame) and thing.origin == FrameOrigin.SENT for thing in drain(jitter, now + 0.004)
        )
    assert "requested" not in jitter.counters
    assert patience[-1] > patience[1]


def test_nothing_is_asked_for_that_would_come_too_late():
    jitter = buffer(round_trip=0.5)
    jitter.push(packet(1), 0.0)
    jitter.push(packet(3), 0.04)
    drain(jitter, 0.04)
    assert jitter.delay <= 0.06, "nor is it waited for"
    while (due := jitter.next_timeout()) < math.inf:
        assert jitter.take_requests(due) == ()
        drain(jitter, due)
    assert jitter.counters == {"lost": 1}


def delay_over(round_trip: float, spread: float, *, copies: bool = False, missing: int = 1, **bounds: float) -> float:
    config = JitterConfig(requests=RequestConfig(), **bounds)  # type: ignore[arg-type]
    jitter = JitterBuffer(config, lambda: PathEstimate(round_trip, spread), lambda _: copies)
    jitter.push(packet(1), 0.0)
    jitter.push(packet(2 + missing), 0.04)
    return jitter.delay


def test_the_delay_follows_the_round_trip_and_the_jitter():
    assert 0.020 <= delay_over(0.01, 0.001) < delay_over(0.05, 0.001) < delay_over(0.05, 0.03) <= 0.100
    assert 0.085 < delay_over(0.085, 0.001) <= 0.100
    assert delay_over(0.13, 0.001) == delay_over(0.3, 0.001) == 0.020
    assert 0.130 < delay_over(0.13, 0.001, max_delay=0.200) <= 0.200
    assert delay_over(0.3, 0.001, min_delay=0.030, max_delay=0.200) == 0.030


def test_a_gap_of_two_that_a_copy_halves_is_waited_for_only_where_answers_are_quick():
    halved = {"missing": 2, "copies": True}
    assert 0.040 < delay_over(0.04, 0.001, **halved) <= 0.060
    assert delay_over(0.07, 0.001, **halved) == 0.020
    assert delay_over(0.07, 0.001, missing=2) > 0.070
    assert delay_over(0.07, 0.001, **halved, max_delay_with_copy=0.100) > 0.070
    assert delay_over(0.04, 0.001, **halved, max_delay=0.030) <= 0.030


def test_a_newer_gap_that_a_copy_halves_takes_no_time_from_an_older_one():
    config = JitterConfig(requests=RequestConfig())
    jitter = JitterBuffer(config, lambda: PathEstimate(0.07, 0.001), lambda packet: packet.sequence == 6)
    jitter.push(packet(1), 0.0)
    drain(jitter, 0.0)
    jitter.push(packet(4), 0.060)
    assert jitter.take_requests(0.066) == (2, 3)
    jitter.push(packet(6), 0.100)
    assert drain(jitter, 0.100) == []
    assert drain(jitter, 0.135) == []
    jitter.push(packet(2), 0.136)
    jitter.push(packet(3), 0.136)
    assert [frame.payload for frame in drain(jitter, 0.136) if isinstance(frame, Frame)] == [b"2", b"3", b"4", b"6"]
    assert jitter.counters["recovered"] == 2


def test_a_packet_that_divides_a_gap_does_not_make_it_last_longer():
    config = JitterConfig(requests=RequestConfig())
    jitter = JitterBuffer(config, lambda: PathEstimate(0.07, 0.001))
    jitter.push(packet(1), 0.0)
    jitter.push(packet(5), 0.060)
    drain(jitter, 0.0)
    given_up_at = 0.060 + jitter.delay
    jitter.push(packet(3), 0.120)
    assert [type(thing) for thing in drain(jitter, given_up_at)] == [Gap, Frame, Gap, Frame]
    assert jitter.counters["lost"] == 2


def test_a_number_that_comes_round_again_is_missed_anew():
    requests = ResendRequests()
    requests.miss(range(1, 9), 0.0, 1.0)
    assert len(requests.take(0.1, 0.04)) == 8
    requests.give_up(range(1, 9))
    for number in range(1, 9):
        requests.arrived(number, 0.2)
    requests.miss(range(1, 9), 100.0, 101.0)
    requests.miss(range(101, 109), 100.0, 101.0)
    assert len(requests.take(100.1, 0.04)) == 16
    requests.give_up(range(101, 109))
    assert all(requests.arrived(number, 100.15) for number in range(1, 9))


def test_the_packet_that_no_copy_covers_is_asked_for_only_if_the_answer_comes_within_the_shorter_wait():
    for round_trip, asked in ((0.03, (2, 3)), (0.08, ())):
        jitter = buffer(round_trip=round_trip, copies=True)
        jitter.push(packet(1), 0.0)
        jitter.push(packet(4), 0.04)
        assert jitter.take_requests(jitter.next_timeout()) == asked


def test_what_a_copy_covers_is_handed_on_soon_and_not_asked_for_when_the_answer_would_come_later():
    jitter, late = buffer(round_trip=0.04, copies=True), 0
    for number in range(0, 300, 3):
        now = number * TICK
        jitter.push(packet(number), now)
        jitter.push(packet(number + 2), now + 2 * TICK)
        assert jitter.take_requests(now + 2 * TICK + 0.005) == ()
        late = max(late, jitter.next_timeout() - now - 2 * TICK)
        drain(jitter, jitter.next_timeout())
        assert jitter.is_plain
    assert late == pytest.approx(0.020)
    assert jitter.counters == {"lost": 100}


def test_what_a_copy_covers_is_asked_for_where_the_answer_comes_before_the_copy_is_used():
    jitter = buffer(round_trip=0.006, copies=True)
    jitter.push(packet(1), 0.0)
    drain(jitter, 0.0)
    jitter.push(packet(3), 0.04)
    assert jitter.take_requests(0.045) == (2,)
    jitter.push(packet(2), 0.052)
    things = drain(jitter, 0.052)
    assert [(thing.sequence, getattr(thing, "origin", None)) for thing in things] == [
        (2, FrameOrigin.RESENT),
        (3, FrameOrigin.SENT),
    ]
    jitter.push(packet(5), 0.08)
    assert jitter.take_requests(0.085) == (4,)
    assert [type(thing) for thing in drain(jitter, 0.1)] == [Gap, Frame]
    jitter.push(packet(4), 0.104)
    assert drain(jitter, 0.104) == []
    assert jitter.counters["late"] == 1


def test_of_a_gap_whose_end_alone_a_copy_covers_the_rest_is_asked_and_waited_for():
    jitter = buffer(round_trip=0.03, copies=True)
    jitter.push(packet(1), 0.0)
    drain(jitter, 0.0)
    jitter.push(packet(4), 0.06)
    assert jitter.take_requests(0.065) == (2, 3)
    assert drain(jitter, 0.095) == []
    jitter.push(packet(2), 0.098)
    assert [thing.sequence for thing in drain(jitter, 0.098)] == [2, 3, 4], "now the copy is all that is needed"
    assert jitter.is_plain


def test_a_gap_that_a_packet_out_of_order_made_small_is_asked_for_no_more():
    jitter = buffer(round_trip=0.04, copies=True)
    jitter.push(packet(1), 0.0)
    jitter.push(packet(4), 0.06)
    jitter.push(packet(2), 0.063)
    drain(jitter, 0.063)
    assert jitter.take_requests(0.065) == ()
    assert [thing.sequence for thing in drain(jitter, 0.08)] == [3, 4]


def test_of_a_long_gap_only_the_end_is_asked_for():
    jitter = buffer()
    jitter.push(packet(1), 0.0)
    jitter.push(packet(41), 0.8)
    asked = jitter.take_requests(jitter.next_timeout())
    assert asked == tuple(range(25, 41))


def test_the_rate_of_requests_is_bounded_whatever_is_lost():
    requests, asked = ResendRequests(), 0
    for number in range(4000):  # 200 a second, and all that were asked for come
        now = number * 0.005
        requests.miss(range(number, number + 1), now, now + 0.2)
        for sequence in requests.take(now, 0.01):
            asked += 1
            requests.arrived(sequence, now + 0.01)
    assert 900 < asked <= 50 * 20 + 32
    assert len(requests._missing) <= 128


def test_of_what_would_come_too_late_one_in_eight_is_asked_for():
    jitter, asked = buffer(round_trip=0.3), 0
    for number in range(0, 2000, 2):
        now = number * TICK
        jitter.push(packet(number), now)
        while (due := jitter.next_timeout()) < now + TICK:
            asked += len(jitter.take_requests(due))
            drain(jitter, due)
    assert 0.1 < asked / 1000 < 0.15


def test_where_nobody_resends_waiting_ends_and_where_somebody_begins_to_it_comes_back():
    jitter = buffer(round_trip=0.05)
    number, now = 0, 0.0
    waits = []

    def lose_one(comes: bool) -> None:
        nonlocal number, now
        for step in (1, 3):
            jitter.push(packet(number + step), now)
            now += TICK
        missed_at = now - TICK
        waits.append(jitter.delay)
        asked = False
        while (due := jitter.next_timeout()) < math.inf:
            asked = bool(jitter.take_requests(due)) or asked
            drain(jitter, due)
        if comes and asked:
            jitter.push(packet(number + 2), missed_at + 0.06)
        drain(jitter, missed_at + 0.06)
        number, now = number + 3, now + 1.0

    for _ in range(30):
        lose_one(comes=False)
    assert waits[0] > 0.05
    assert waits[-1] == 0.020
    for _ in range(10):
        lose_one(comes=True)
    assert waits[-1] > 0.05


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.integers(0, 120), st.floats(0, 0.1)), max_size=120),
    st.floats(0.001, 0.3),
    st.sampled_from([0, 65_500]),
    st.booleans(),
)
def test_whatever_comes_is_handed_on_in_order_once_and_nothing_stays(
    arrivals: list[tuple[int, float]], round_trip: float, start: int, copies: bool
):
    jitter = buffer(round_trip, copies=copies)
    now = 0.0
    handed: list[int] = []

    def take() -> None:
        for thing in drain(jitter, now):
            first, count = (thing.sequence, 1) if isinstance(thing, Frame) else (thing.sequence, thing.packets)
            handed.extend(first + n & 0xFFFF for n in range(count))
        jitter.take_requests(now)

    jitter.push(packet(start), now)
    take()
    for number, pause in arrivals:
        now += pause
        jitter.push(packet(start + number), now)
        take()
    for _ in range(2000):
        if jitter.next_timeout() == math.inf:
            break
        now = max(now, jitter.next_timeout())
        take()
    assert jitter.next_timeout() == math.inf
    assert handed == [start + n & 0xFFFF for n in range(len(handed))]


def test_a_loss_on_a_path_whose_answers_take_longer_than_said_is_waited_for_as_long():
    requests = ResendRequests()
    assert requests.recovery_time(0.02) == pytest.approx(0.03)
    for number in range(20):
        now = float(number)
        requests.miss(range(number, number + 1), now, now + 0.2)
        assert requests.take(requests.due, 0.02) == (number,)
        requests.arrived(number, now + 0.005 + 0.09)
    recovery = requests.recovery_time(0.02)
    assert recovery is not None
    assert 0.09 < recovery < 0.11


def test_a_gap_without_missing_time_was_padding_and_nobody_waits_for_it():
    jitter = buffer()
    heard = []

    def send(number: int, frame: int, payload: bytes = b"x") -> None:
        jitter.push(RtpPacket(False, 111, number, frame * 960, 7, payload=payload), frame * TICK)
        heard.extend(drain(jitter, frame * TICK))

    for number in range(5):
        send(number, number)
    send(5, 4, b"")  # padding bears the timestamp of the frame before it
    send(9, 5)  # three of those were lost
    send(10, 5, b"")
    send(12, 5, b"")
    send(13, 6)
    assert jitter.is_plain
    assert [thing.sequence for thing in heard] == [0, 1, 2, 3, 4, 9, 13]
    assert jitter.counters == {"empty": 3, "padding_lost": 4}
    send(15, 8)  # a frame is missing here
    assert not jitter.is_plain
    assert jitter.take_requests(8 * TICK + 0.02) == (14,)
    send(14, 7)
    send(17, 9, b"")  # and here: this padding stands behind the next frame
    assert jitter.take_requests(9 * TICK + 0.02) == (16,)


# Sending again


def test_a_packet_is_sent_again_as_it_was_and_at_most_twice():
    resend = ResendBuffer()
    for number in range(100):
        resend.keep(number, b"packet %d" % number)
    assert resend.take([98, 99], 2.0, 0.02) == [b"packet 98", b"packet 99"]
    assert resend.take([99], 2.01, 0.02) == [], "its copy is still under way"
    assert resend.take([99], 2.03, 0.02) == [b"packet 99"]
    assert resend.take([99], 3.0, 0.02) == []
    assert resend.take([3, 5000], 3.0, 0.02) == [], "not here any more, and never sent"
    assert resend.counters == {"resent": 3, "resend_refused": 2, "resend_unknown": 2}


def test_nacks_cannot_make_us_send_more_than_twice_the_stream():
    resend = ResendBuffer()
    sent = 0
    for number in range(1000):
        now = number * TICK
        resend.keep(number & 0xFFFF, b"x")
        for again in range(4):
            sent += len(resend.take(range(max(0, number - 63), number + 1), now + again * 0.005, 0.0))
    assert sent <= 1000 + 16
    assert len(resend._resends) <= 128


def test_numbers_wrap_and_old_packets_are_forgotten():
    resend = ResendBuffer()
    for number in range(65_500, 65_600):
        resend.keep(number & 0xFFFF, b"%d" % number)
    assert resend.take([65_535, 0, 63], 0.0, None) == [b"65536", b"65599"]
    assert resend.counters["resend_unknown"] == 1


@pytest.mark.parametrize("copies", [True, False])
def test_what_was_lost_for_good_takes_no_memory_that_grows(copies: bool):
    jitter = buffer(copies=copies)
    number = 0

    def lose(packets: int) -> int:
        """Every third packet; the bytes that are held afterwards."""
        nonlocal number
        for _ in range(packets):
            now = number * TICK
            jitter.push(packet(number), now)
            jitter.push(packet(number + 1), now + TICK)
            number += 3
            jitter.take_requests(now + 2 * TICK)
            drain(jitter, now + 3 * TICK - 0.001)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = lose(60)
        assert lose(2000) - before < 4000
    finally:
        tracemalloc.stop()
    assert jitter.counters["lost"] > 2000


def test_only_packets_that_were_sent_and_lately_are_known():
    resend = ResendBuffer()
    assert not resend.has_any([0, 1, 65535])
    for number in range(65500, 65500 + 100):
        resend.keep(number & 0xFFFF, b"x")
    assert resend.has_any([7, 63])  # 65500 + 99, modulo 2^16
    assert not resend.has_any([64, 65500, 30000])


def test_a_packet_whose_number_has_come_round_again_may_be_sent_again_as_often_as_any():
    resend = ResendBuffer()
    now = 0.0
    for number in range(2 * 0x10000):
        resend.keep(number & 0xFFFF, b"%d" % number)
        now += 0.02
        if number & 0xFFFF == 7:
            copies = [resend.take([7], now + 0.1 * n, 0.05) for n in range(4)]
            assert copies == [[b"%d" % number]] * 2 + [[]] * 2
            now += 1

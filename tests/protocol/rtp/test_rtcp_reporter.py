"""When reports go out, what they say, and what is learned from those of the peer; in virtual time."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.rtp import ReceivedTotals, RtcpConfig, RtcpReporter, ntp_from_unix
from protocol.rtp.rtcp import (
    Feedback,
    Goodbye,
    ReceiverReport,
    ReportBlock,
    RtcpPacket,
    RtcpType,
    SenderReport,
    SourceDescription,
    UnknownPacket,
    parse_rtcp_untrusted,
    serialize_rtcp,
)

OURS, THEIRS = 0xAAAA, 0xBBBB


def reporter(ssrc: int = OURS, seed: int = 1, **options: object) -> RtcpReporter:
    settings = {"cname": "call-7", "clock_rate": 48000, "entropy": random.Random(seed).randbytes, **options}
    return RtcpReporter(ssrc=ssrc, **settings)  # type: ignore[arg-type]


def sent(core: RtcpReporter) -> list[list[RtcpPacket]]:
    return [parse_rtcp_untrusted(output.data) for output in core.poll()]


def report_after(core: RtcpReporter) -> list[RtcpPacket]:
    core.handle_timeout(core.next_timeout())
    (compound,) = sent(core)
    return compound


def test_nothing_is_due_before_the_first_packet():
    core = reporter()
    assert core.next_timeout() == math.inf
    core.handle_timeout(1e9)
    core.close(1e9)
    assert core.poll() == []


def test_the_first_report_is_early_and_the_others_come_at_the_interval_rfc_3550_draws():
    core = reporter()
    core.packet_received(THEIRS, 1, 0, 80, 100.0)
    times = [100.0]
    for _ in range(400):
        times.append(core.next_timeout())
        core.handle_timeout(times[-1] - 1e-6)
        assert sent(core) == []  # safe to call early
        core.handle_timeout(times[-1])
        assert len(sent(core)) == 1
    steps = [after - before for before, after in itertools.pairwise(times)]
    assert steps[0] < 0.7
    assert min(steps[1:]) >= 2.5 / (math.e - 1.5)
    assert max(steps[1:]) <= 7.5 / (math.e - 1.5)
    assert sum(steps[1:]) / len(steps[1:]) == pytest.approx(5 / (math.e - 1.5), rel=0.05)


def test_a_sender_says_sr_and_once_silent_for_two_intervals_rr():
    core = reporter()
    core.packet_sent(0, 80, 1.0)
    kinds = [type(report_after(core)[0]) for _ in range(4)]
    assert kinds == [SenderReport, SenderReport, ReceiverReport, ReceiverReport]
    core.packet_sent(960, 80, core.next_timeout() - 1)
    assert isinstance(report_after(core)[0], SenderReport)


def test_every_report_carries_our_cname():
    core = reporter()
    core.packet_received(THEIRS, 1, 0, 80, 1.0)
    report, description = report_after(core)
    assert isinstance(report, ReceiverReport)
    assert isinstance(description, SourceDescription)
    assert (report.ssrc, description.cname(OURS)) == (OURS, b"call-7")


def test_blocks_tell_of_sources_heard_since_the_last_report_only():
    core = reporter()
    for sequence in (1, 2, 4):
        core.packet_received(THEIRS, sequence, 960 * sequence, 80, 1.0)
    (block,) = report_after(core)[0].reports
    assert (block.ssrc, block.highest_sequence, block.packets_lost, block.fraction_lost) == (THEIRS, 4, 1, 64)
    assert report_after(core)[0].reports == ()


def test_two_reporters_learn_their_round_trip_from_each_other():
    ours, theirs = reporter(), reporter(THEIRS, 2, ntp_epoch=ntp_from_unix(1.8e9))
    ours.packet_sent(0, 80, 50.0)
    theirs.packet_received(OURS, 1, 0, 80, 50.04)
    at = ours.next_timeout()
    ours.handle_timeout(at)
    for compound in sent(ours):
        theirs.receive_untrusted(serialize_rtcp(compound), at + 0.04)
    theirs.packet_received(OURS, 2, 960, 80, at + 0.05)
    while not (answer := sent(theirs)):
        answer_at = theirs.next_timeout()
        theirs.handle_timeout(answer_at)
        if answer_at < at + 0.04:
            assert sent(theirs)
    ours.receive_untrusted(serialize_rtcp(answer[0]), answer_at + 0.03)
    assert ours.round_trip_time == pytest.approx(0.07, abs=0.001)
    assert ours.remote_report is not None
    assert ours.remote_report.highest_sequence in (1, 2)
    assert ours.last_received == answer_at + 0.03


def block_about_us(last_sender_report: int, delay: float = 0.0) -> bytes:
    return ReceiverReport(
        THEIRS, (ReportBlock(OURS, 25, 3, 9, 48, last_sender_report, int(delay * 65536)),)
    ).serialize()


def test_a_round_trip_that_cannot_be_is_not_believed():
    core = reporter()
    core.packet_sent(0, 80, 1.0)
    at = core.next_timeout()
    report = report_after(core)[0]
    assert isinstance(report, SenderReport)
    stamp = report.ntp_time >> 16 & 0xFFFFFFFF
    core.receive_untrusted(block_about_us(0), at + 1)  # heard no report of ours
    core.receive_untrusted(block_about_us(stamp + 1), at + 1)  # of a report that we never sent
    core.receive_untrusted(block_about_us(stamp, delay=2.0), at + 1)  # held longer than it was away
    core.receive_untrusted(block_about_us(stamp), at + 100)
    assert core.round_trip_time is None
    assert core.remote_report is not None
    assert core.remote_report.fraction_lost == 25
    core.receive_untrusted(block_about_us(stamp, delay=0.5), at + 0.5)
    assert core.round_trip_time == pytest.approx(0, abs=0.001)


def test_blocks_about_others_say_nothing_of_us():
    core = reporter()
    core.receive_untrusted(ReceiverReport(THEIRS, (ReportBlock(0xCCCC, 9, 9, 9, 9, 0, 0),)).serialize(), 1.0)
    assert core.remote_report is None


def test_a_sender_report_of_the_peer_is_answered_with_its_stamp():
    core = reporter()
    core.packet_received(THEIRS, 1, 0, 80, 1.0)
    core.receive_untrusted(SenderReport(THEIRS, 0x0000_5678_9ABC_0000, 0, 1, 80).serialize(), 1.1)
    core.receive_untrusted(SenderReport(0xDDDD, 1 << 40, 0, 1, 80).serialize(), 1.1)  # a source never heard
    at = core.next_timeout()
    (block,) = report_after(core)[0].reports
    assert block.last_sender_report == 0x5678_9ABC
    assert block.delay_since_last_sender_report == pytest.approx((at - 1.1) * 65536, abs=1)


def test_close_says_bye_once_and_then_nothing():
    core = reporter()
    core.packet_sent(0, 80, 1.0)
    core.close(2.0)
    core.close(2.0)
    ((report, description, goodbye),) = sent(core)
    assert isinstance(report, SenderReport)
    assert isinstance(description, SourceDescription)
    assert goodbye == Goodbye((OURS,))
    core.receive_untrusted(Goodbye((THEIRS,)).serialize(), 3.0)
    core.packet_sent(960, 80, 3.0)
    core.handle_timeout(1000.0)
    assert core.poll() == []
    assert core.next_timeout() == math.inf


def test_a_bye_ends_the_source_it_names_and_what_was_counted_stays():
    core = reporter()
    for sequence in (1, 2, 4):
        core.packet_received(THEIRS, sequence, 0, 80, 1.0)
    core.receive_untrusted(Goodbye((THEIRS, 0xCCCC), b"going").serialize(), 2.0)
    assert core.sources == {}
    assert core.counters == {"source_bye": 1}
    assert core.received == ReceivedTotals(packets=3, octets=240, lost=1)
    core.packet_received(THEIRS, 5, 0, 80, 2.1)  # it had been on its way, or the source came back
    assert core.received == ReceivedTotals(packets=4, octets=320, lost=1)


def test_a_source_of_which_nothing_came_for_five_intervals_is_forgotten_and_rtcp_keeps_it():
    core = reporter()
    core.packet_received(1, 7, 0, 80, 100.0)
    core.packet_received(2, 7, 0, 80, 100.0)
    core.packet_received(3, 7, 0, 80, 100.0)
    core.receive_untrusted(ReceiverReport(2).serialize(), 110.0)
    core.receive_untrusted(SenderReport(3, 1 << 40, 0, 1, 80).serialize(), 110.0)
    while (due := core.next_timeout()) < 134.0:
        core.handle_timeout(due)
    assert set(core.sources) == {2, 3}
    assert core.counters == {"source_timeout": 1}
    while (due := core.next_timeout()) < 145.0:
        core.handle_timeout(due)
    assert core.sources == {}
    assert core.received == ReceivedTotals(packets=3, octets=240, lost=0)


def test_feedback_is_counted_by_its_kind_and_nothing_piles_up():
    core = reporter()
    kinds = [(RtcpType.RTPFB, 1), (RtcpType.RTPFB, 15), (RtcpType.PSFB, 1), (RtcpType.PSFB, 15), (RtcpType.RTPFB, 30)]
    compound = [Feedback(kind, number, THEIRS, OURS, b"\0\5\0\0") for kind, number in kinds]
    for _ in range(100):
        core.receive_untrusted(serialize_rtcp(compound), 1.0)
    names = ("nack", "transport_cc", "pli", "afb", "other")
    assert core.counters == {f"feedback_{name}": 100 for name in names}
    assert core.poll() == []


def test_extended_reports_and_application_packets_are_read_past():
    core = reporter()
    core.packet_sent(0, 80, 1.0)
    extended = UnknownPacket(RtcpType.XR, 0, THEIRS.to_bytes(4, "big") + bytes.fromhex("04000002") + bytes(8))
    application = UnknownPacket(RtcpType.APP, 0, THEIRS.to_bytes(4, "big") + b"test")
    block = ReportBlock(OURS, 7, 0, 1, 0, 0, 0)
    core.receive_untrusted(serialize_rtcp([extended, application, ReceiverReport(THEIRS, (block,))]), 2.0)
    assert core.remote_report == block
    assert not core.drops


def test_reports_take_a_twentieth_of_the_bandwidth_of_the_thriftiest_voice_at_most():
    core = reporter()
    rtcp = rtp = 0
    for tick in range(3000):  # a minute; Opus at 6 kbit/s, the least it does (RFC 6716 §2.1.1)
        now = 10 + tick * 0.02
        core.packet_sent(tick * 960, 15, now)
        core.packet_received(THEIRS, tick & 0xFFFF, tick * 960, 15, now)
        rtp += 28 + 12 + 15 + 16  # IP and UDP count in RFC 3550 §6.2; 16 is the tag of SRTP
        core.handle_timeout(now)
        rtcp += sum(28 + len(output.data) + 16 + 4 for output in core.poll())
    assert 0 < 2 * rtcp < 0.05 * 2 * rtp, "both sides report, both sides send"


def test_sources_are_bounded_and_a_timed_out_one_makes_room():
    core = reporter(config=RtcpConfig(max_sources=2, source_timeout=25.0))
    assert core.packet_received(1, 1, 0, 80, 0.0)
    assert core.packet_received(2, 1, 0, 80, 10.0)
    assert not core.packet_received(3, 1, 0, 80, 20.0)
    assert core.drops["rtcp_source_limit"] == 1
    assert core.packet_received(3, 2, 0, 80, 26.0)
    assert set(core.sources) == {2, 3}


def test_our_own_ssrc_coming_back_is_a_collision():
    core = reporter()
    assert not core.packet_received(OURS, 1, 0, 80, 0.0)
    assert core.drops["rtcp_ssrc_collision"] == 1
    assert core.sources == {}


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.binary(max_size=64), max_size=5))
def test_no_bytes_make_it_raise(datagrams: list[bytes]):
    core = reporter()
    for data in datagrams:
        core.receive_untrusted(data, 1.0)
        core.receive_untrusted(b"\x81\xc8" + data, 1.0)
    assert set(core.drops) <= {"rtcp_malformed"}
    assert core.drops["rtcp_malformed"] <= 2 * len(datagrams)

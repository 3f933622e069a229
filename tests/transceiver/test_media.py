"""Audio both ways, in virtual time."""

from __future__ import annotations

import pytest

from protocol.agentlink import MediaFlags, PlayedReason
from protocol.codecs import OPUS, PCMU
from protocol.rtp import RtpPacket
from transceiver.media import PACE_SECONDS, Downlink, OutgoingFrame, Uplink

FRAME = OPUS.silence
TICK = PACE_SECONDS


def packet(number: int, payload: bytes = b"x", payload_type: int = 111, marker: bool = False) -> RtpPacket:
    return RtpPacket(marker, payload_type, 65_530 + number & 0xFFFF, number * 960 & 0xFFFFFFFF, 7, payload=payload)


def test_uplink_frames_are_handed_on_in_order_and_at_once() -> None:
    uplink = Uplink(111, 48_000)
    uplink.push(packet(0, b"a", marker=True), 0.0)
    uplink.push(packet(2, b"c"), 0.02)
    uplink.push(packet(1, b"b"), 0.03)
    assert [(r.handle, r.rtp_time, r.flags, r.payload) for r in uplink.take(9)] == [
        (9, 0, MediaFlags.MARKER, b"a"),
        (9, 960, 0, b"b"),
        (9, 1920, 0, b"c"),
    ]
    assert not uplink.waiting


def test_a_lost_packet_is_given_up_after_a_while_and_the_frame_behind_it_says_so() -> None:
    uplink = Uplink(111, 48_000)
    uplink.push(packet(0), 0.0)
    uplink.take(1)
    uplink.push(packet(2), 0.04)
    assert not uplink.waiting
    assert uplink.next_timeout() < 0.2
    uplink.handle_timeout(uplink.next_timeout())
    assert [record.flags for record in uplink.take(1)] == [MediaFlags.GAP]
    assert uplink.drops["lost"] == 1


def test_of_speech_that_nobody_takes_the_last_second_is_kept() -> None:
    uplink = Uplink(111, 48_000)
    for number in range(200):
        uplink.push(packet(number), number * 0.02)
    records = uplink.take(1)
    assert len(records) == 51
    assert records[-1].rtp_time == 199 * 960
    assert records[0].flags & MediaFlags.GAP
    assert uplink.drops["stale"] == 149


def test_other_payload_types_and_giant_frames_stay_out() -> None:
    uplink = Uplink(111, 48_000)
    uplink.push(packet(0, payload_type=126), 0.0)
    uplink.push(packet(1, b"x" * 1501), 0.0)
    uplink.push(packet(2), 0.0)
    assert [record.rtp_time for record in uplink.take(1)] == [1920]
    assert uplink.drops == {"payload_type": 1, "oversize": 1}


def test_a_key_press_is_told_once_and_is_no_audio() -> None:
    uplink = Uplink(111, 48_000, 126)
    uplink.push(packet(0, b"a"), 0.0)
    presses = [
        RtpPacket(False, 126, 65_530 + n & 0xFFFF, 960, 7, payload=bytes((5, n == 5, 0, n))) for n in range(1, 6)
    ]
    digits = [uplink.push(press, 0.02 * press.sequence) for press in presses]
    assert digits == ["5", None, None, None, None]
    assert uplink.push(packet(6, b"b"), 0.14) is None
    assert uplink.push(RtpPacket(False, 126, 1, 5760, 7, payload=b"\x0b\x0a"), 0.16) is None
    assert [(record.payload, record.flags) for record in uplink.take(1)] == [(b"a", 0), (b"b", 0)]
    assert uplink.drops == {"telephone_event_truncated": 1}


def test_dtx_passes_as_it_came_and_the_silence_is_no_loss() -> None:
    uplink = Uplink(111, 48_000)
    for number, (ticks, payload) in enumerate([(0, FRAME), (1, b"\xf8"), (21, b"\xf8"), (41, FRAME)]):
        uplink.push(RtpPacket(ticks == 41, 111, number, ticks * 960, 7, payload=payload), ticks * 0.02)
    records = uplink.take(1)
    assert [(record.rtp_time // 960, record.payload) for record in records] == [
        (0, FRAME),
        (1, b"\xf8"),
        (21, b"\xf8"),
        (41, FRAME),
    ]
    assert [record.flags for record in records] == [0, 0, 0, MediaFlags.MARKER]
    assert not uplink.drops


def run(downlink: Downlink, start: float, ticks: int) -> list[tuple[float, OutgoingFrame]]:
    """The pacer alone, from `start`: what leaves when."""
    sent = []
    for tick in range(ticks):
        now = start + tick * TICK
        sent += [(now, frame) for frame in downlink.take_due(now)]
    return sent


def test_a_sentence_sent_in_one_go_leaves_at_the_pace_of_speech() -> None:
    downlink = Downlink(OPUS, 1000)
    for number in range(50):
        downlink.push(number * 960, FRAME, 0.0)
    first = downlink.take_due(0.0)
    assert first == [OutgoingFrame(FRAME, 1000, True)]
    sent = run(downlink, 0.013, 60)
    assert [frame.timestamp for _, frame in sent] == [1000 + 960 * number for number in range(1, 50)]
    assert not any(frame.marker for _, frame in sent)
    for number, (when, _) in enumerate(sent, 1):
        due = number * 0.02
        assert due - TICK <= when <= due + 1e-9


def test_frames_that_arrive_just_in_time_are_not_held_up() -> None:
    downlink = Downlink(OPUS, 0)
    jitter = (0.0, 0.004, 0.011, 0.002, 0.03, 0.015)
    for number, late in enumerate(jitter):
        now = number * 0.02 + late
        downlink.push(number * 960, FRAME, now)
        assert [frame.timestamp for frame in downlink.take_due(now)] == [number * 960]


def test_frames_that_were_held_up_together_are_caught_up_and_leave_no_delay_behind() -> None:
    downlink = Downlink(OPUS, 0)
    sent = []
    for number in range(100):
        arrival = 0.12 + 0.001 * number if number < 6 else number * 0.02  # a stall of 120 ms, then real time
        downlink.push(number * 960, FRAME, arrival if number else 0.0)
        sent += downlink.take_due(arrival if number else 0.0)
    assert [frame.timestamp for frame in sent] == [number * 960 for number in range(100)]


@pytest.mark.parametrize("milliseconds", [5, 10, 20, 60])
@pytest.mark.parametrize("late", [0.06, 0.12, 0.18])
def test_frames_that_come_late_all_at_once_leave_at_twice_the_pace(late: float, milliseconds: int) -> None:
    """As the engine does it: each frame by the short way if that takes it, and a tick every 20 ms."""
    downlink = Downlink(PCMU, 0)
    samples, step = milliseconds * 8, milliseconds / 1000
    sent: list[tuple[float, int]] = []

    def tick(now: float) -> None:
        if downlink.next_action() <= now:
            sent.extend((now, frame.timestamp) for frame in downlink.take_due(now))

    def give(number: int, now: float) -> None:
        timestamp = downlink.follow(number * samples, bytes(samples), now)
        if timestamp >= 0:
            sent.append((now, timestamp))
        else:
            downlink.push(number * samples, bytes(samples), now)
            tick(now)

    waiting = round(late / step) + 1
    free = 9 * step + late
    for number in range(10 + waiting):
        give(number, number * step if number < 10 else free)
    for count in range(1, 20):
        tick(free + count * TICK)
    assert [timestamp for _, timestamp in sent] == [number * samples for number in range(10 + waiting)]
    times = [now for now, _ in sent[10:]]
    for first, begin in enumerate(times):
        for count, end in enumerate(times[first:], 1):
            assert count * step <= max(2 * TICK, step + TICK) + 2 * (end - begin) + 1e-6
    assert times[-1] <= free + (late / 2 if step < 0.04 else late) + TICK


def test_after_a_silence_the_timestamp_has_moved_by_what_passed_and_the_marker_is_set() -> None:
    downlink = Downlink(OPUS, 0xFFFF_FFF0)
    downlink.push(0, FRAME, 0.0)
    assert downlink.take_due(0.0) == [OutgoingFrame(FRAME, 0xFFFF_FFF0, True)]
    assert downlink.take_due(0.1) == []
    downlink.push(960, FRAME, 1.02)
    assert downlink.take_due(1.02) == [OutgoingFrame(FRAME, (0xFFFF_FFF0 + 51 * 960) & 0xFFFFFFFF, True)]


def test_a_late_tick_is_caught_up_without_a_burst() -> None:
    downlink = Downlink(OPUS, 0)
    for number in range(20):
        downlink.push(number * 960, FRAME, 0.0)
    assert len(downlink.take_due(0.0)) == 1
    assert len(downlink.take_due(0.05)) == 2
    assert len(downlink.take_due(1.0)) == 1, "a whole second late: the schedule moves, nothing is hurried"
    sent = run(downlink, 1.02, 30)
    assert len(sent) == 16
    assert sent[-1][1].timestamp == 19 * 960


@pytest.mark.parametrize("interval", [0.030, 0.050, 0.080, 0.150])
def test_a_pacer_whose_every_tick_is_late_lets_no_queue_grow(interval: float) -> None:
    downlink = Downlink(OPUS, 0)
    number = sent = 0
    for tick in range(1, 200):
        now = tick * interval
        while number * 0.02 <= now:  # an agent that speaks in real time
            downlink.push(number * 960, FRAME, number * 0.02)
            number += 1
        sent += len(downlink.take_due(now, interval - 0.02))
        assert number - sent <= 3 + interval / 0.02


@pytest.mark.parametrize("stall", [0.15, 0.25, 0.6, 0.9])
def test_what_our_own_loop_held_up_is_caught_up_and_stays_in_no_live_call_as_delay(stall: float) -> None:
    downlink = Downlink(OPUS, 0)
    number, sent, now = 0, 0, 0.0
    while now < 10.0:
        pause, late = 0.02, 0.0
        if round(now, 2) == 5.0:
            pause, late = stall, stall - 0.02
        now += pause
        if pause > 0.1:
            downlink.stalled(pause, now)
        sent += len(downlink.take_due(now, late))
        while number * 0.02 <= now:  # an agent that speaks in real time: what it said meanwhile comes all at once
            downlink.push(number * 960, FRAME, now)
            number += 1
        sent += len(downlink.take_due(now))
        if now > 5.0 + stall + 2 * (stall + 0.2):
            assert number - sent <= 1
    assert not downlink.drops


def test_after_a_stall_beyond_a_second_the_schedule_moves() -> None:
    downlink = Downlink(OPUS, 0)
    for number in range(20):
        downlink.push(number * 960, FRAME, 0.0)
    assert len(downlink.take_due(0.0)) == 1
    downlink.stalled(5.0, 5.0)
    assert len(downlink.take_due(5.0)) == 1
    assert len(run(downlink, 5.02, 30)) == 18


def test_short_and_long_frames_keep_the_same_pace() -> None:
    downlink = Downlink(PCMU, 0)
    for number in range(100):  # 5 ms each
        downlink.push(number * 40, bytes(40), 0.0)
    sent = run(downlink, 0.0, 40)
    assert len(sent) == 100
    assert sent[-1][0] <= 0.5
    assert sent[-1][0] >= 0.45
    assert [frame.timestamp for _, frame in sent] == [number * 40 for number in range(100)]


def test_five_seconds_may_wait_and_no_more() -> None:
    downlink = Downlink(OPUS, 0)
    for number in range(300):
        downlink.push(number * 960, FRAME, 0.0)
    assert downlink.drops["overflow"] == 50
    assert len(run(downlink, 0.0, 400)) == 250


def test_the_agent_learns_how_far_its_audio_was_played() -> None:
    downlink = Downlink(OPUS, 0)
    for number in range(25):
        downlink.push(number * 960, FRAME, 0.0)
    reports = []
    for tick in range(60):
        downlink.take_due(tick * TICK)
        if (report := downlink.take_report()) is not None:
            reports.append((round(tick * TICK, 2), report))
    reasons = [report.reason for _, report in reports]
    assert reasons == [PlayedReason.PROGRESS] * 3 + [PlayedReason.DRAINED]
    assert [report.rtp_time for _, report in reports][-1] == 25 * 960
    assert reports[0][1].buffered_ms > 400
    assert reports[-1][1].buffered_ms == 0
    assert not downlink.playing


def test_a_flush_drops_what_waits_and_reports_where_playing_stopped() -> None:
    downlink = Downlink(OPUS, 0)
    for number in range(100):
        downlink.push(number * 960, FRAME, 0.0)
    run(downlink, 0.0, 10)
    downlink.take_report()
    downlink.flush(0.2)
    report = downlink.take_report()
    assert report is not None
    assert report.reason is PlayedReason.FLUSHED
    assert report.rtp_time in (10 * 960, 11 * 960)
    assert report.buffered_ms == 0
    assert downlink.drops["flushed"] in (89, 90)
    assert run(downlink, 0.22, 10) == []
    downlink.push(96_000, FRAME, 0.23)  # what follows a flush is new audio
    assert len(downlink.take_due(0.23)) == 1


def test_what_is_cut_ends_in_silence_that_is_heard_and_that_the_agent_knows_nothing_of() -> None:
    downlink = Downlink(OPUS, 0)
    for number in range(100):
        downlink.push(number * 960, b"\xf8\x01\x02", 0.0)
    run(downlink, 0.0, 10)
    downlink.take_report()
    downlink.flush(0.19, hush=True)
    report = downlink.take_report()
    assert report is not None
    assert (report.reason, report.buffered_ms) == (PlayedReason.FLUSHED, 0)
    last = report.rtp_time
    assert downlink.playing
    sent = [frame for _, frame in run(downlink, 0.19, 10)]
    assert [frame.payload for frame in sent] == [OPUS.silence] * 3
    assert [(frame.timestamp, frame.marker) for frame in sent] == [(last + 960 * n, False) for n in range(3)]
    assert not downlink.playing
    assert downlink.take_report() is None
    downlink.flush(0.5, hush=True)
    assert not downlink.playing, "nothing had been said"
    assert downlink.drops["flushed"] in (89, 90)


def test_what_is_said_right_after_a_cut_does_not_wait_for_the_silence() -> None:
    downlink = Downlink(OPUS, 0)
    for number in range(100):
        downlink.push(number * 960, b"\xf8\x01\x02", 0.0)
    run(downlink, 0.0, 10)
    downlink.flush(0.19, hush=True)
    downlink.push(96_000, b"\xf8\x03", 0.19)
    [(_, first)] = run(downlink, 0.19, 3)
    assert first.payload == b"\xf8\x03"
    report = downlink.take_report()
    assert report is not None
    assert report.rtp_time in (96_960, 10 * 960, 11 * 960)


def test_what_one_agent_has_played_is_not_told_to_the_next() -> None:
    downlink = Downlink(OPUS, 0)
    for number in range(100):
        downlink.push(number * 960, FRAME, 0.0)
    run(downlink, 0.0, 10)
    downlink.restart(0.2)
    assert downlink.take_report() is None
    downlink.push(0, FRAME, 0.2)
    downlink.flush(0.2)
    assert downlink.take_report() == (0, 0, PlayedReason.FLUSHED)


def test_a_flush_of_nothing_is_answered_too() -> None:
    downlink = Downlink(OPUS, 0)
    downlink.flush(1.0)
    report = downlink.take_report()
    assert report is not None
    assert (report.rtp_time, report.buffered_ms, report.reason) == (0, 0, PlayedReason.FLUSHED)


def test_what_is_no_frame_of_the_codec_is_dropped_and_counted() -> None:
    downlink = Downlink(OPUS, 0)
    downlink.push(0, b"", 0.0)
    downlink.push(0, b"\xff", 0.0)
    assert downlink.take_due(0.0) == []
    assert downlink.drops == {"empty": 1, "opus_truncated": 1}


def test_an_agents_dtx_leaves_as_it_came_and_its_silence_stays_one():
    downlink = Downlink(OPUS, 0)
    sent = []
    for ticks, payload in ((0, FRAME), (1, b"\xf8"), (21, b"\xf8"), (41, b"\xf8"), (61, FRAME), (62, FRAME)):
        downlink.push(ticks * 960, payload, ticks * TICK)
        sent += [(frame.timestamp // 960, frame.payload, frame.marker) for frame in downlink.take_due(ticks * TICK)]
    assert sent == [
        (0, FRAME, True),
        (1, b"\xf8", False),
        (21, b"\xf8", True),
        (41, b"\xf8", True),
        (61, FRAME, True),
        (62, FRAME, False),
    ]
    assert not downlink.drops

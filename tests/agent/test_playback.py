"""The account of what was played, through flushes, lost reports and wrapped clocks."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.playback import Playback
from protocol.agentlink import PlayedReason

PROGRESS, DRAINED, FLUSHED = PlayedReason.PROGRESS, PlayedReason.DRAINED, PlayedReason.FLUSHED


def sent(*frames: int) -> Playback:
    playback = Playback()
    for samples in frames:
        playback.send(samples)
    return playback


def test_reports_move_audio_from_ahead_to_played():
    playback = sent(*[960] * 10)
    playback.report(2 * 960, PROGRESS)
    assert (playback.played, playback.ahead) == (1920, 7680)
    playback.report(10 * 960, DRAINED)
    assert (playback.played, playback.ahead) == (9600, 0)


def test_a_flush_gives_up_what_was_not_played_and_new_audio_counts_from_there():
    playback = sent(*[960] * 10)
    playback.flush()
    assert playback.ahead == 0
    assert playback.send(960) == 9600
    playback.report(3 * 960, PROGRESS)  # said before the flush arrived
    assert (playback.played, playback.settled) == (3 * 960, 0)
    playback.report(4 * 960, FLUSHED)
    assert (playback.played, playback.ahead, playback.settled) == (4 * 960, 960, 1)
    playback.report(11 * 960, DRAINED)
    assert (playback.played, playback.ahead) == (5 * 960, 0)


def test_a_report_from_beyond_a_flush_proves_it():
    playback = sent(960, 960)
    playback.flush()
    playback.send(960)
    playback.report(2 * 960 + 480, PROGRESS)
    assert (playback.played, playback.ahead, playback.settled) == (480, 480, 1)


def test_audio_taken_back_before_it_left_makes_no_hole():
    playback = sent(960, 960, 960)
    playback.rewind(960)
    assert playback.send(480) == 960


def test_old_and_impossible_reports_change_nothing():
    playback = sent(960, 960)
    playback.report(960, PROGRESS)
    playback.report(480, PROGRESS)
    playback.report(960 - 5000, PROGRESS)
    assert playback.played == 960
    playback.report(50_000, PROGRESS)
    assert (playback.played, playback.ahead) == (1920, 0)


def test_the_timeline_goes_on_where_32_bits_end():
    playback = Playback()
    playback.sent = playback._position = (1 << 32) - 960
    assert playback.send(1920) == (1 << 32) - 960
    assert playback.send(960) == 960
    playback.report(1920, DRAINED)
    assert (playback.played, playback.ahead) == (2880, 0)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(
        st.one_of(
            st.just("send"), st.just("flush"), st.tuples(st.integers(0, 0xFFFF_FFFF), st.sampled_from(PlayedReason))
        )
    )
)
def test_whatever_is_reported_the_account_stays_sane(steps: list[object]):
    playback = Playback()
    for step in steps:
        before = playback.played
        if step == "send":
            playback.send(960)
        elif step == "flush":
            playback.flush()
        else:
            playback.report(*step)
        assert before <= playback.played <= playback.sent
        assert 0 <= playback.ahead <= playback.sent

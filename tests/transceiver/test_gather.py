"""How long a link to an agent gathers frames: not at all when few come, up to its bound when many do."""

from __future__ import annotations

import pytest

from transceiver.backends.gather import FULL_RATE, GatherPace


def run(pace: GatherPace, rate: float, seconds: float) -> list[float]:
    """Frames come evenly at `rate`; the delays between writes, once each has taken what had come."""
    now, waiting, delays = 0.0, 0.0, []
    while now < seconds:
        before, now = now, max(pace.due, now + 1 / rate)
        waiting += (now - before) * rate
        pace.count(int(waiting), now)
        waiting -= int(waiting)
        delays.append(pace.due - now)
    return delays


def test_the_first_frame_waits_for_nothing():
    assert GatherPace(0.004).due < 0


@pytest.mark.parametrize("rate", [50.0, 250.0])
def test_on_a_quiet_link_the_next_frame_finds_the_way_free(rate: float):
    assert max(run(GatherPace(0.004), rate, 2)) < 1 / rate


@pytest.mark.parametrize("rate", [FULL_RATE, 4 * FULL_RATE])
def test_on_a_busy_link_frames_gather_for_the_longest_time(rate: float):
    delays = run(GatherPace(0.004), rate, 2)
    assert delays[-1] == pytest.approx(0.004, rel=0.1)
    assert max(delays) < 0.004 + 1e-9


def test_between_them_the_delay_grows_with_the_rate():
    assert 0.001 < run(GatherPace(0.004), FULL_RATE / 2, 2)[-1] < 0.003


def test_when_the_rush_is_over_nothing_waits_any_more():
    pace = GatherPace(0.004)
    run(pace, 2 * FULL_RATE, 1)
    pace.count(1, 20.0)
    assert pace.due - 20.0 < 0.0001


def test_a_bound_of_nothing_is_no_gathering():
    assert max(run(GatherPace(0.0), 2 * FULL_RATE, 1)) == 0

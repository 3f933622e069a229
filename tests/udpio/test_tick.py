"""When the pump sleeps, in virtual time."""

from __future__ import annotations

import pytest

from udpio.tick import Tick

BUDGET = 200e-6


def run(tick: Tick, rate: float, seconds: float, start: float = 0.0) -> tuple[int, int, float]:
    """Packets evenly at `rate`; returns sleeps, wake-ups by a packet, and the end."""
    now, sleeps, wakes, taken = start, 0, 0, 0
    while now < start + seconds:
        arrived = int((now - start) * rate)
        sleep = tick.next_sleep(arrived - taken, now)
        taken = arrived
        if sleep:
            sleeps += 1
            now += sleep
        else:
            wakes += 1
            now = start + (taken + 1.001) / rate
    return sleeps, wakes, now


@pytest.mark.parametrize("rate", [50, 1000, 8000])
def test_few_packets_never_wait(rate: float):
    sleeps, wakes, _ = run(Tick(BUDGET), rate, 1)
    assert sleeps == 0
    assert wakes >= rate * 0.99


@pytest.mark.parametrize("rate", [25_000, 100_000, 1_000_000])
def test_many_packets_share_a_wake_up_for_the_budget(rate: float):
    sleeps, wakes, _ = run(Tick(BUDGET), rate, 1)
    assert sleeps == pytest.approx(5000, rel=0.05)
    assert wakes < 0.04 * rate + 1000  # until it has learned the rate


def test_a_budget_of_nothing_never_sleeps():
    assert run(Tick(0.0), 100_000, 0.5)[0] == 0


def test_a_rate_near_the_border_does_not_flutter():
    tick = Tick(BUDGET)
    _, _, now = run(tick, 25_000, 0.2)
    sleeps, wakes, now = run(tick, 15_000, 0.2, now)
    assert wakes <= 1
    assert sleeps > 900
    sleeps, wakes, _ = run(tick, 5_000, 0.5, now)
    assert sleeps < 300
    assert wakes > 2000


def test_silence_ends_the_sleeping():
    tick = Tick(BUDGET)
    _, _, now = run(tick, 100_000, 0.2)
    assert tick.next_sleep(1, now + 0.5) == 0
    assert tick.rate < 5000


def test_two_turns_at_the_same_moment_are_no_division_by_zero():
    tick = Tick(BUDGET)
    tick.next_sleep(5, 1.0)
    assert tick.next_sleep(5, 1.0) == 0


def test_who_has_slept_in_vain_waits_to_be_woken():
    tick = Tick(BUDGET)
    _, _, now = run(tick, 100_000, 0.2)
    assert tick.next_sleep(20, now + BUDGET) == BUDGET
    assert tick.next_sleep(0, now + 2 * BUDGET) == 0
    assert tick.next_sleep(20, now + 3 * BUDGET) == BUDGET

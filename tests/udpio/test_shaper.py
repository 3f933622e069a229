"""A bad network as a piece of arithmetic: what it does is what was asked of it, and the same each time."""

from __future__ import annotations

import math
from itertools import pairwise
from random import Random

import pytest

from udpio import Conditions, Shaper

PACE = 0.02


def run(conditions: Conditions, count: int = 20_000, *, seed: int = 1, length: int = 100) -> tuple[Shaper[int], list]:
    """`count` datagrams, one each 20 ms; what arrived, with the times at which it did."""
    shaper: Shaper[int] = Shaper(conditions, Random(seed))
    arrived: list[tuple[int, float]] = []

    def receive(until: float) -> None:
        while (due := shaper.next_timeout()) <= until and shaper.under_way:
            arrived.extend((item, due) for item in shaper.poll(due))

    for number in range(count):
        receive(number * PACE)
        shaper.send(number, length, number * PACE)
    receive(math.inf)
    return shaper, arrived


def share_of(shaper: Shaper[int], *reasons: str) -> float:
    return sum(shaper.drops[reason] for reason in reasons) / shaper.offered


def test_a_perfect_network_delivers_everything_in_order_at_once():
    shaper, arrived = run(Conditions(), 100)
    assert arrived == [(number, number * PACE) for number in range(100)]
    assert (shaper.offered, shaper.delivered, shaper.under_way) == (100, 100, 0)
    assert Conditions().is_perfect
    assert not Conditions(loss=0.1).is_perfect


def test_nothing_arrives_before_its_delay_and_everything_at_it():
    shaper: Shaper[str] = Shaper(Conditions(delay=0.25), Random(1))
    shaper.send("one", 10, 1.0)
    assert shaper.next_timeout() == 1.25
    assert shaper.poll(1.2499) == []
    assert shaper.poll(1.25) == ["one"]
    assert shaper.next_timeout() == math.inf


def test_single_losses_have_the_share_that_was_asked_for():
    shaper, arrived = run(Conditions(loss=0.2))
    assert share_of(shaper, "lost") == pytest.approx(0.2, abs=0.01)
    assert len(arrived) == shaper.offered - shaper.drops["lost"]


def test_bursts_have_the_share_and_the_length_that_were_asked_for():
    shaper, arrived = run(Conditions(burst_loss=0.1, burst_length=8), 40_000)
    assert share_of(shaper, "lost_in_burst") == pytest.approx(0.1, rel=0.15)
    numbers = [number for number, _ in arrived]
    bursts = [after - before - 1 for before, after in pairwise(numbers) if after > before + 1]
    assert sum(bursts) / len(bursts) == pytest.approx(8, rel=0.15)


def test_jitter_is_evenly_distributed_and_never_reorders():
    _, arrived = run(Conditions(delay=0.05, jitter=0.1))
    assert [number for number, _ in arrived] == list(range(20_000))
    late = [time - number * PACE for number, time in arrived]
    assert min(late) >= 0.05
    assert max(late) <= 0.15 + 1e-9


def test_what_is_held_back_is_overtaken_and_the_others_keep_their_order():
    shaper, arrived = run(Conditions(reorder=0.1, hold=0.1))
    assert shaper.held_back / shaper.offered == pytest.approx(0.1, abs=0.01)
    numbers = [number for number, _ in arrived]
    assert sorted(numbers) == list(range(20_000))
    overtaken = sum(after < before for before, after in pairwise(numbers))
    assert overtaken / 20_000 == pytest.approx(0.08, abs=0.02)  # a fifth is held for less than the next one's pace
    assert max(time - number * PACE for number, time in arrived) <= 0.1 + 1e-9


def test_doubled_datagrams_arrive_twice_and_the_first_time_on_time():
    shaper, arrived = run(Conditions(duplication=0.1))
    first = {}
    for number, time in arrived:
        first.setdefault(number, time)
    assert first == {number: number * PACE for number in range(20_000)}
    assert len(arrived) - len(first) == shaper.doubled
    assert shaper.doubled / shaper.offered == pytest.approx(0.1, abs=0.01)


def test_a_black_hole_swallows_what_is_longer_than_the_mtu_and_only_that():
    shaper: Shaper[int] = Shaper(Conditions(mtu=600), Random(1))
    for length in (1200, 573, 572, 20):
        shaper.send(length, length, 0.0)
    assert shaper.poll(0.0) == [572, 20]  # 28 bytes of headers
    assert shaper.drops == {"too_large": 2}


def test_a_narrow_line_spaces_out_what_comes_at_once():
    shaper: Shaper[int] = Shaper(Conditions(rate=80_000), Random(1))
    for number in range(3):
        shaper.send(number, 972, 5.0)  # 1000 bytes with headers: a tenth of a second each
    assert [shaper.poll(5.0 + 0.1 * tenths + 1e-6) for tenths in range(4)] == [[], [0], [1], [2]]
    shaper.send(9, 972, 9.0)  # the line was idle meanwhile
    assert shaper.next_timeout() == pytest.approx(9.1)


def test_a_full_queue_drops_the_newest():
    shaper: Shaper[int] = Shaper(Conditions(delay=1.0), Random(1), max_queue=2)
    for number in range(4):
        shaper.send(number, 10, 0.0)
    assert shaper.poll(1.0) == [0, 1]
    assert shaper.drops == {"queue_full": 2}


def test_new_conditions_hold_for_what_is_sent_from_then_on():
    shaper: Shaper[int] = Shaper(Conditions(delay=0.1), Random(1))
    shaper.send(1, 10, 0.0)
    shaper.conditions = Conditions(loss=1.0)
    shaper.send(2, 10, 0.0)
    shaper.conditions = Conditions()
    shaper.send(3, 10, 0.0)
    assert shaper.poll(1.0) == [1, 3]  # in the order they were sent: only who is held back is overtaken


def test_the_same_seed_does_the_same_and_another_seed_something_else():
    conditions = Conditions(
        loss=0.1, burst_loss=0.1, delay=0.02, jitter=0.05, reorder=0.1, duplication=0.1, rate=100_000
    )
    assert run(conditions, 500, seed=7)[1] == run(conditions, 500, seed=7)[1]
    assert run(conditions, 500, seed=7)[1] != run(conditions, 500, seed=8)[1]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"loss": 1.1}, "loss"),
        ({"loss": -0.1}, "loss"),
        ({"loss": math.nan}, "loss"),
        ({"burst_loss": 0.9, "burst_length": 5}, "burst_loss"),
        ({"burst_length": 0.5}, "burst_length"),
        ({"delay": -1}, "delay"),
        ({"delay": math.inf}, "delay"),
        ({"jitter": math.inf}, "jitter"),
        ({"reorder": 2}, "reorder"),
        ({"duplication": 2}, "duplication"),
        ({"mtu": 28}, "mtu"),
        ({"rate": 0}, "rate"),
    ],
)
def test_conditions_that_cannot_be_are_refused_by_the_name_of_the_field(wrong: dict[str, float], field: str):
    with pytest.raises(ValueError, match=f"^{field}: "):
        Conditions(**wrong)

"""What the tests and `just sim` let happen in a world, and what they look at afterwards."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sim.caller import Habit
from sim.plan import Mischief, Plan
from sim.world import World

from udpio import Conditions

__all__ = ["CALM", "CASES", "HARSH", "Case", "Setup", "case_pairs", "quantile", "set_up", "set_up_with"]

CALM = Conditions(delay=0.020)
HARSH = Conditions(loss=0.2, delay=0.020, jitter=0.010, reorder=0.05, duplication=0.05)
FIRST = 10
LIMIT = 15.0  # seconds, after which nobody waits for a call to be set up

Case = tuple[str, int, Mischief]
"""(direction, number of the datagram, what becomes of it)."""

CASES: tuple[Case, ...] = tuple(itertools.product(("up", "down"), range(FIRST), Mischief))
"""One of the first ten datagrams of one direction dropped, doubled or swapped with the next."""


def case_pairs() -> Iterator[tuple[Case, Case]]:
    """Every two of them that concern different datagrams."""
    return ((one, other) for one, other in itertools.combinations(CASES, 2) if one[:2] != other[:2])


@dataclass(frozen=True, slots=True)
class Setup:
    """How a call came about."""

    seed: object
    seconds: float
    """From the answer to a call that is ready; infinite if it never was."""
    missing: str | None
    """The stage that was not reached."""
    stages: Mapping[str, float]
    """Seconds from the answer."""
    trace: str


def set_up(seed: object, conditions: Conditions = HARSH, habit: Habit = Habit.CHROMIUM) -> Setup:
    """One call on a bad network, until it is ready."""
    return _set_up(World(seed, up=conditions), habit, {}, {})


def set_up_with(*cases: Case) -> Setup:
    """One call on a good network, with mischief done to some of its first datagrams."""
    plans: dict[str, dict[int, Mischief]] = {"up": {}, "down": {}}
    for direction, number, mischief in cases:
        plans[direction][number] = mischief
    return _set_up(World(cases, up=CALM), Habit.CHROMIUM, plans["up"], plans["down"])


def _set_up(world: World, habit: Habit, up: dict[int, Mischief], down: dict[int, Mischief]) -> Setup:
    caller = world.new_caller(habit)
    caller.up_plan, caller.down_plan = Plan(up), Plan(down)
    world.dial(caller)
    call = caller.call
    world.run_until(lambda: call.is_ready or call.is_over, LIMIT)
    stages = {stage: at - caller.dialled_at for stage, at in call.reached.items()}
    missing = call.failure or call.missing_stage
    return Setup(world.seed, caller.setup_seconds, missing, stages, world.trace)


def quantile(values: list[float], share: float) -> float:
    """The value that `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

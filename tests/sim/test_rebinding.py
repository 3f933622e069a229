"""The caller's address changes in mid-call: media is back within a second of his next check, and a copied check moves nothing.

A relay cannot tell whose media comes from an address it has never seen, so nothing is back before a check. How long that
takes is the client's habit; what follows is ours.
"""

from __future__ import annotations

import pytest
from sim.caller import Caller, Habit
from sim.scenarios import CALM
from sim.world import World

from protocol.address import pack_address

ATTACKER = pack_address("192.0.2.66", 6666)
# The longest that a client of this habit lets pass without a check: its interval and a fifth, or silence and its interval.
PATIENCE = {Habit.CHROMIUM: 3.3, Habit.FIREFOX: 6.1, Habit.OLD_PION: 4.5}


def moved(world: World, caller: Caller, *, host: bool) -> tuple[float, float]:
    """Rebind; (seconds to the next check, seconds from it to media)."""
    at = world.now
    world.rebind(caller, host=host)
    world.run_for(PATIENCE[caller.habit] + 1.5)
    check = next(sent for sent, _ in caller.checks_sent if sent >= at)
    # What was on its way to the old address does not arrive, so whatever is heard after the check came to the new one.
    heard = next((time for time in caller.heard_at if time > check), float("inf"))
    return check - at, heard - check


@pytest.mark.slow
@pytest.mark.parametrize("host", [False, True], ids=["port", "host"])
@pytest.mark.parametrize("habit", list(Habit), ids=lambda habit: habit.value)
def test_after_a_rebinding_media_is_back_within_a_second_of_the_next_check(habit: Habit, host: bool):
    for seed in range(2):
        world = World(f"{seed} {habit} {host}", up=CALM)
        caller = world.talk(world.new_caller(habit))
        world.run_for(1 + seed * 1.7)
        waited, gap = moved(world, caller, host=host)
        assert waited <= PATIENCE[habit]
        assert gap <= 1.0, f"seed {seed}: {gap:.2f} s"
        assert caller.call.failure is None


@pytest.mark.slow
@pytest.mark.parametrize("habit", list(Habit), ids=lambda habit: habit.value)
def test_a_call_survives_an_address_that_changes_all_the_time(habit: Habit):
    world = World(habit, up=CALM, rebind_every=7.0)
    caller = world.talk(world.new_caller(habit))
    world.run_for(22)
    assert world.nat.rebindings >= 3
    assert caller.call.failure is None
    assert caller.call.audio.longest_gap <= PATIENCE[habit] + 1.0


@pytest.mark.slow
@pytest.mark.parametrize("habit", list(Habit), ids=lambda habit: habit.value)
def test_a_check_copied_by_somebody_else_moves_nothing(habit: Habit):
    world = World(habit, up=CALM)
    caller = world.talk(world.new_caller(habit))
    path = session(world, caller).peer.ice.selected
    for _ in range(7):  # every check of these seconds again, from another address
        world.run_for(1)
        for _, check in caller.checks_sent[-3:]:
            world.inject(check, ATTACKER)
    world.run_for(1)
    assert session(world, caller).peer.ice.selected == path
    assert [data for data in world.strays.get(ATTACKER, []) if data[0] >= 20] == []
    assert caller.call.audio.longest_gap < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("habit", [Habit.CHROMIUM, Habit.FIREFOX], ids=lambda habit: habit.value)
def test_a_copied_check_that_comes_before_the_original_moves_nothing(habit: Habit):
    world = World(habit, up=CALM)
    caller = world.talk(world.new_caller(habit))
    path = session(world, caller).peer.ice.selected
    seen = len(caller.checks_sent)
    for _ in range(350):
        world.run_for(0.02)
        for _, check in caller.checks_sent[seen:]:  # his way is shorter than the caller's
            world.inject(check, ATTACKER)
        seen = len(caller.checks_sent)
    assert session(world, caller).peer.ice.selected == path
    assert [data for data in world.strays[ATTACKER] if data[0] >= 20] == []
    assert caller.call.audio.longest_gap < 0.05


def session(world: World, caller: Caller):
    return world.registry.sessions[caller.call_id]

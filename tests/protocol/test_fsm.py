"""State machines as tables: every cell is obeyed, joint rules reach their fixed point, incomplete tables are refused."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import pytest

from protocol.errors import LocalError
from protocol.fsm import Cell, Deadline, IllegalTransition, Joint, Machine, Region, to

IGNORE, ILLEGAL = Cell.IGNORE, Cell.ILLEGAL


class Door(enum.Enum):
    SHUT = 1
    OPEN = 2
    GONE = 3


class Lamp(enum.Enum):
    OFF = 1
    ON = 2


class Effect(enum.Enum):
    CREAK = 1
    SHINE = 2
    FADE = 3
    SLAM = 4


@dataclass(frozen=True, slots=True)
class Push: ...


@dataclass(frozen=True, slots=True)
class Burn: ...


@dataclass(frozen=True, slots=True)
class Switch: ...


ROWS = {
    Door.SHUT: (to(Door.OPEN, Effect.CREAK), to(Door.GONE)),
    Door.OPEN: (IGNORE, to(Door.GONE, Effect.SLAM)),
    Door.GONE: (ILLEGAL, ILLEGAL),
}
DOOR = Region("door", Door.SHUT, (Push, Burn), ROWS, {Door.OPEN: Deadline("draught", Burn)})
LAMP = Region("lamp", Lamp.OFF, (Switch,), {Lamp.OFF: (to(Lamp.ON),), Lamp.ON: (to(Lamp.OFF),)})


def test_an_event_moves_its_region_and_returns_the_effects_of_its_cell():
    machine = Machine((DOOR, LAMP))
    assert machine.states() == (Door.SHUT, Lamp.OFF)
    assert machine.fire(Push()) == (Effect.CREAK,)
    assert machine.state(Door) is Door.OPEN
    assert machine.state(Lamp) is Lamp.OFF


def test_an_ignored_event_changes_nothing():
    machine = Machine((DOOR,))
    machine.fire(Push())
    assert machine.fire(Push()) == ()
    assert machine.state(Door) is Door.OPEN


def test_an_illegal_event_is_our_bug_and_names_the_cell():
    machine = Machine((DOOR,))
    machine.fire(Burn())
    with pytest.raises(IllegalTransition, match="door: Push in GONE"):
        machine.fire(Push())
    assert machine.state(Door) is Door.GONE
    assert issubclass(IllegalTransition, LocalError)


def test_joint_rules_follow_each_other_to_a_fixed_point_in_one_event():
    shine = Joint((frozenset({Door.OPEN}), frozenset({Lamp.OFF})), to(Lamp.ON, Effect.SHINE))
    burn = Joint((frozenset({Lamp.ON}), frozenset({Door.OPEN})), to(Door.GONE, Effect.SLAM))
    fade = Joint((frozenset({Lamp.ON}), frozenset({Door.GONE})), to(Lamp.OFF, Effect.FADE))
    machine = Machine((DOOR, LAMP), (fade, burn, shine))
    assert machine.fire(Push()) == (Effect.CREAK, Effect.SHINE, Effect.SLAM, Effect.FADE)
    assert machine.states() == (Door.GONE, Lamp.OFF)


def test_joint_rules_wait_until_all_their_regions_agree():
    rule = Joint((frozenset({Door.OPEN, Door.GONE}), frozenset({Lamp.ON})), to(Lamp.OFF, Effect.FADE))
    machine = Machine((DOOR, LAMP), (rule,))
    assert machine.fire(Switch()) == ()
    assert machine.fire(Burn()) == (Effect.FADE,)


def test_only_present_states_have_deadlines():
    machine = Machine((DOOR, LAMP))
    assert list(machine.deadlines()) == []
    machine.fire(Push())
    assert list(machine.deadlines()) == [(Door.OPEN, Deadline("draught", Burn))]


def test_two_machines_share_a_table_but_no_state():
    first, second = Machine((DOOR,)), Machine((DOOR,))
    first.fire(Push())
    assert second.state(Door) is Door.SHUT


def test_a_table_without_a_row_or_a_cell_is_refused():
    with pytest.raises(LocalError, match="rows and states differ"):
        Region("door", Door.SHUT, (Push, Burn), {Door.SHUT: (IGNORE, IGNORE)})
    with pytest.raises(LocalError, match="1 cells for 2 events"):
        Region("door", Door.SHUT, (Push, Burn), {**ROWS, Door.GONE: (ILLEGAL,)})


@pytest.mark.parametrize("state", [Door.OPEN, Door.GONE])
def test_a_deadline_must_lead_somewhere(state: Door):
    with pytest.raises(LocalError, match="its deadline leads nowhere"):
        Region("door", Door.SHUT, (Push, Burn), ROWS, {state: Deadline("draught", Push)})


def test_an_event_belongs_to_one_region_only():
    other = Region("lamp", Lamp.OFF, (Push,), {Lamp.OFF: (IGNORE,), Lamp.ON: (IGNORE,)})
    with pytest.raises(LocalError, match="two regions"):
        Machine((DOOR, other))


@pytest.mark.parametrize(
    "when",
    [
        (),
        (frozenset({Door.OPEN}),),
        (frozenset({Lamp.OFF, Lamp.ON}),),
        (frozenset({Lamp.OFF}), frozenset[enum.Enum]()),
    ],
)
def test_a_joint_rule_that_would_apply_for_ever_is_refused(when: tuple[frozenset[enum.Enum], ...]):
    with pytest.raises(LocalError, match="does not end its own condition"):
        Joint(when, to(Lamp.ON))

"""State machines as tables: regions, joint rules, deadlines.

1. A state changes only in `Machine.fire`. Nothing else may assign it.
2. Every (state, event) cell is written down: a target, `IGNORE` or `ILLEGAL`. There is no default.
3. Effects are data in the cell: the machine says what must happen, its owner does it.
4. Deadlines are in the table, so that "which states can hang?" is a question the table answers.

Regions are small machines that move in parallel; joint rules couple them, applied to a fixed point after every event
(the idea of h11's state tables).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from protocol.errors import LocalError

State = TypeVar("State", bound=enum.Enum)

__all__ = ["Cell", "Deadline", "IllegalTransition", "Joint", "Machine", "Region", "To", "to"]


class IllegalTransition(LocalError):
    """An event arrived in a state whose table row says that it cannot."""


class Cell(enum.Enum):
    IGNORE = "ignore"  # legal, late or duplicate; no effect
    ILLEGAL = "illegal"  # cannot happen; our bug if it does


@dataclass(frozen=True, slots=True)
class To:
    state: enum.Enum
    effects: tuple[enum.Enum, ...] = ()


def to(state: enum.Enum, *effects: enum.Enum) -> To:
    return To(state, effects)


@dataclass(frozen=True, slots=True)
class Deadline:
    timeout: str  # name of the field of the timeouts configuration that gives the seconds
    event: type  # fired, without arguments, when a state was held that long


@dataclass(frozen=True, slots=True)
class Region:
    """One small machine: its rows give, for each state, one cell for each of `events`, in that order."""

    name: str
    initial: enum.Enum
    events: tuple[type, ...]
    rows: Mapping[enum.Enum, tuple[To | Cell, ...]]
    deadlines: Mapping[enum.Enum, Deadline] = field(default_factory=dict)

    def __post_init__(self) -> None:
        states = set(type(self.initial))
        if set(self.rows) != states:
            raise LocalError(f"{self.name}: rows and states differ: {set(self.rows) ^ states}")
        for state, row in self.rows.items():
            if len(row) != len(self.events):
                raise LocalError(f"{self.name}.{state.name}: {len(row)} cells for {len(self.events)} events")
        for state, deadline in self.deadlines.items():
            if not isinstance(self.cell(state, deadline.event), To):
                raise LocalError(f"{self.name}.{state.name}: its deadline leads nowhere")

    def cell(self, state: enum.Enum, event: type) -> To | Cell:
        return self.rows[state][self.events.index(event)]


@dataclass(frozen=True, slots=True)
class Joint:
    """When the regions named in `when` are all in one of the given states, one region moves."""

    when: tuple[frozenset[enum.Enum], ...]
    then: To

    def __post_init__(self) -> None:
        # A rule that still holds after its own move would be applied for ever.
        kind = type(self.then.state)
        if not all(self.when) or not any(
            isinstance(next(iter(states)), kind) and self.then.state not in states for states in self.when
        ):
            raise LocalError(f"the joint rule for {self.then.state} does not end its own condition")


class _Place:
    """The states of all regions at one time, and what has followed from there: worked out once for all machines of a table."""

    __slots__ = ("deadlines", "moves", "states")

    def __init__(self, table: _Table, states: dict[type, enum.Enum]) -> None:
        self.states = states
        self.deadlines = tuple(
            (state, deadline)
            for kind, state in states.items()
            if (deadline := table.regions[kind].deadlines.get(state)) is not None
        )
        self.moves: dict[type, tuple[_Place, tuple[enum.Enum, ...]]] = {}  # by the type of the event


class _Table:
    """Regions and joint rules. It has as many places as there are joint states, a few dozen at most."""

    def __init__(self, regions: tuple[Region, ...], joints: tuple[Joint, ...]) -> None:
        self._region_of = {event: region for region in regions for event in region.events}
        if len(self._region_of) != sum(len(region.events) for region in regions):
            raise LocalError("an event stands in two regions")
        self.regions = {type(region.initial): region for region in regions}
        self._joints = joints
        self._places: dict[tuple[enum.Enum, ...], _Place] = {}
        self.start = self.place({kind: region.initial for kind, region in self.regions.items()})

    def place(self, states: dict[type, enum.Enum]) -> _Place:
        key = tuple(states.values())
        if key not in self._places:
            self._places[key] = _Place(self, states)
        return self._places[key]

    def follow(self, place: _Place, event: type) -> tuple[_Place, tuple[enum.Enum, ...]]:
        """Where `event` leads, and by which effects. Raises IllegalTransition."""
        region = self._region_of[event]
        kind = type(region.initial)
        cell = region.cell(place.states[kind], event)
        if cell is Cell.ILLEGAL:
            raise IllegalTransition(f"{region.name}: {event.__name__} in {place.states[kind].name}")
        if isinstance(cell, To):
            states, effects = dict(place.states), list(cell.effects)
            states[kind] = cell.state
            self._apply_joints(states, effects)
            place.moves[event] = self.place(states), tuple(effects)
        else:
            place.moves[event] = place, ()
        return place.moves[event]

    def _apply_joints(self, states: dict[type, enum.Enum], effects: list[enum.Enum]) -> None:
        moved = True
        while moved:
            moved = False
            for rule in self._joints:
                if all(states[type(next(iter(held)))] in held for held in rule.when):
                    states[type(rule.then.state)] = rule.then.state
                    effects += rule.then.effects
                    moved = True


_tables: dict[
    tuple[int, ...], tuple[object, _Table]
] = {}  # by what they are made of, held so that its ids stay its own


def _table(regions: tuple[Region, ...], joints: tuple[Joint, ...]) -> _Table:
    key = (*map(id, regions), *map(id, joints))
    if key not in _tables:
        _tables[key] = ((regions, joints), _Table(regions, joints))
    return _tables[key][1]


class Machine:
    """The states of all regions of one table; `fire` is the only way to move."""

    __slots__ = ("_place", "_table")

    def __init__(self, regions: tuple[Region, ...], joints: tuple[Joint, ...] = ()) -> None:
        self._table = _table(regions, joints)
        self._place = self._table.start

    def state(self, kind: type[State]) -> State:
        """The present state of the region whose states are of this enum."""
        return self._place.states[kind]  # type: ignore[return-value]  # asked several times a packet: a cast is a call

    def states(self) -> tuple[enum.Enum, ...]:
        return tuple(self._place.states.values())

    def deadlines(self) -> tuple[tuple[enum.Enum, Deadline], ...]:
        """(state, its deadline) for each region whose present state has one: the same tuple for the same states."""
        return self._place.deadlines

    def fire(self, event: object) -> tuple[enum.Enum, ...]:
        """Move by `event`; returns the effects to carry out, in order. Raises IllegalTransition on an ILLEGAL cell."""
        kind = type(event)
        move = self._place.moves.get(kind) or self._table.follow(self._place, kind)
        self._place, effects = move
        return effects

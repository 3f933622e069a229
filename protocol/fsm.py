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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

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


_Index: TypeAlias = tuple[dict[type, Region], dict[type, Region]]
_indexes: dict[tuple[int, ...], tuple[tuple[Region, ...], _Index]] = {}  # holds the regions, so that ids stay theirs


def _index(regions: tuple[Region, ...]) -> _Index:
    """Regions by the type of their states and by event: shared by all machines of a table, for there are many."""
    key = tuple(map(id, regions))
    if key not in _indexes:
        region_of = {event: region for region in regions for event in region.events}
        if len(region_of) != sum(len(region.events) for region in regions):
            raise LocalError("an event stands in two regions")
        _indexes[key] = (regions, ({type(region.initial): region for region in regions}, region_of))
    return _indexes[key][1]


class Machine:
    """The states of all regions of one table; `fire` is the only way to move."""

    __slots__ = ("_joints", "_region_of", "_regions", "_states")

    def __init__(self, regions: tuple[Region, ...], joints: tuple[Joint, ...] = ()) -> None:
        self._regions, self._region_of = _index(regions)
        self._joints = joints
        self._states: dict[type, enum.Enum] = {type(region.initial): region.initial for region in regions}

    def state(self, kind: type[State]) -> State:
        """The present state of the region whose states are of this enum."""
        return self._states[kind]  # type: ignore[return-value]  # asked several times a packet: a cast is a call

    def states(self) -> tuple[enum.Enum, ...]:
        return tuple(self._states.values())

    def deadlines(self) -> Iterator[tuple[enum.Enum, Deadline]]:
        """(state, its deadline) for each region whose present state has one."""
        for kind, region in self._regions.items():
            state = self._states[kind]
            if (deadline := region.deadlines.get(state)) is not None:
                yield state, deadline

    def fire(self, event: object) -> tuple[enum.Enum, ...]:
        """Move by `event`; returns the effects to carry out, in order. Raises IllegalTransition on an ILLEGAL cell."""
        region = self._region_of[type(event)]
        kind = type(region.initial)
        old = self._states[kind]
        cell = region.cell(old, type(event))
        if cell is Cell.ILLEGAL:
            raise IllegalTransition(f"{region.name}: {type(event).__name__} in {old.name}")
        if not isinstance(cell, To):
            return ()
        effects = list(cell.effects)
        self._states[kind] = cell.state
        moved = True
        while moved:
            moved = False
            for rule in self._joints:
                if all(self._states[type(next(iter(states)))] in states for states in rule.when):
                    self._states[type(rule.then.state)] = rule.then.state
                    effects += rule.then.effects
                    moved = True
        return tuple(effects)

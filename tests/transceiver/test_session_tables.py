"""The session tables, explored exhaustively: every joint state that can be reached, every event in each of them."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterator

import pytest

from protocol.fsm import Cell, IllegalTransition, Machine, Region, To
from transceiver.config import Timeouts
from transceiver.session.tables import (
    BACKEND,
    EVENTS,
    LIFE,
    REGIONS,
    TRANSPORT,
    Backend,
    Effect,
    Life,
    Transport,
    new_session_machine,
)

Joint = tuple[enum.Enum, ...]
END: Joint = (Transport.GONE, Backend.GONE, Life.CLOSED)


def machine_in(states: Joint) -> Machine:
    """A machine put into a joint state: the one place, in tests, where something else than `fire` writes states."""
    machine = new_session_machine()
    machine._place = machine._table.place(machine._place.states | {type(state): state for state in states})
    return machine


def explore() -> dict[Joint, dict[type, tuple[Joint, tuple[enum.Enum, ...]]]]:
    """Every reachable joint state with its legal moves: event → (next joint state, effects)."""
    start = new_session_machine().states()
    graph: dict[Joint, dict[type, tuple[Joint, tuple[enum.Enum, ...]]]] = {}
    queue = deque([start])
    while queue:
        states = queue.popleft()
        if states in graph:
            continue
        moves = graph[states] = {}
        for event in EVENTS:
            machine = machine_in(states)
            try:
                effects = machine.fire(event())
            except IllegalTransition:
                continue
            moves[event] = (machine.states(), effects)
            queue.append(machine.states())
    return graph


GRAPH = explore()


def test_twenty_five_of_the_hundred_joint_states_can_be_reached() -> None:
    assert len(GRAPH) == 25
    assert END in GRAPH


@pytest.mark.parametrize("states", GRAPH, ids=lambda states: "-".join(state.name for state in states))
def test_in_every_reachable_state(states: Joint) -> None:
    transport, backend, life = states
    # a call cannot sit in STARTING with everything up, nor stay open with a side gone, nor close with a side up
    assert not (life is Life.STARTING and transport is Transport.SECURE and backend is Backend.ATTACHED)
    if life in (Life.CLOSING, Life.CLOSED):
        assert transport is Transport.GONE
        assert backend is Backend.GONE
    else:
        assert transport is not Transport.GONE
        assert backend is not Backend.GONE
    # a deadline is never illegal, and always moves something
    for _, deadline in machine_in(states).deadlines():
        after, _effects = GRAPH[states][deadline.event]
        assert after != states
    # only the end has nothing left to wait for
    assert any(machine_in(states).deadlines()) == (states != END)


def test_deadlines_alone_bring_every_state_to_the_end_in_whatever_order_they_pass() -> None:
    # retries may go round (CONNECTING ⇄ BACKOFF) as long as life's own deadline has not passed, so: the graph of
    # deadline moves has a way to the end from everywhere, and life's deadlines alone are such a way
    for states in GRAPH:
        steps, here = 0, states
        while here != END:
            deadline = LIFE.deadlines[here[2]]
            here, _effects = GRAPH[here][deadline.event]
            steps += 1
            assert steps <= 4
    for region in (TRANSPORT, BACKEND):
        for states in GRAPH:
            for deadline in region.deadlines.values():
                if deadline.event in GRAPH[states]:
                    assert GRAPH[states][deadline.event][0] in GRAPH


def test_every_open_state_has_a_deadline_of_its_own_life() -> None:
    assert set(LIFE.deadlines) == set(Life) - {Life.CLOSED}


def test_goodbyes_and_release_happen_at_most_once_on_every_path() -> None:
    # (joint state, goodbyes so far, releases so far): exhaustive for paths of any length, by their sums
    start = (new_session_machine().states(), 0, 0)
    seen, queue = {start}, deque([start])
    while queue:
        states, goodbyes, releases = queue.popleft()
        assert goodbyes <= 1
        assert releases <= goodbyes
        assert (goodbyes == 1) == (states[2] in (Life.CLOSING, Life.CLOSED))
        assert (releases == 1) == (states == END)
        for after, effects in GRAPH[states].values():
            item = (after, goodbyes + effects.count(Effect.SEND_GOODBYES), releases + effects.count(Effect.RELEASE))
            if item not in seen:
                seen.add(item)
                queue.append(item)


def test_media_starts_at_most_once_and_only_when_live() -> None:
    start = (new_session_machine().states(), 0)
    seen, queue = {start}, deque([start])
    while queue:
        states, starts = queue.popleft()
        assert starts <= 1
        if states[2] in (Life.LIVE, Life.DRAINING):
            assert starts == 1
        for after, effects in GRAPH[states].values():
            item = (after, starts + effects.count(Effect.START_MEDIA))
            if item not in seen:
                seen.add(item)
                queue.append(item)


def test_the_end_absorbs_everything() -> None:
    for event in EVENTS:
        machine = machine_in(END)
        assert machine.fire(event()) == ()
        assert machine.states() == END


def cells() -> Iterator[tuple[Region, enum.Enum, type, To | Cell]]:
    for region in REGIONS:
        for state, row in region.rows.items():
            for event, cell in zip(region.events, row, strict=True):
                yield region, state, event, cell


@pytest.mark.parametrize(
    ("region", "state", "event", "cell"),
    list(cells()),
    ids=lambda value: getattr(value, "name", getattr(value, "__name__", "cell")),
)
def test_every_cell_does_what_it_says(region: Region, state: enum.Enum, event: type, cell: To | Cell) -> None:
    machine = Machine((region,))  # alone, so that no joint rule hides the cell
    machine._place = machine._table.place(machine._place.states | {type(state): state})
    if cell is Cell.ILLEGAL:
        with pytest.raises(IllegalTransition):
            machine.fire(event())
        assert machine.state(type(state)) is state
        return
    effects = machine.fire(event())
    if isinstance(cell, To):
        assert machine.state(type(state)) is cell.state
        assert effects == cell.effects
    else:
        assert machine.state(type(state)) is state
        assert effects == ()


def test_every_effect_and_every_timeout_is_used_and_configured() -> None:
    used = {effect for _, _, _, cell in cells() if isinstance(cell, To) for effect in cell.effects}
    assert used | {Effect.START_MEDIA} == set(Effect)  # START_MEDIA comes from a joint rule
    names = {deadline.timeout for region in REGIONS for deadline in region.deadlines.values()}
    assert names <= set(Timeouts.__struct_fields__)

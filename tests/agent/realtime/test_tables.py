"""Every state and event of the session's machines: what is written is all there is."""

from __future__ import annotations

import itertools

import pytest

from agent.realtime import tables
from agent.realtime.tables import Effect, Playback, Progress
from protocol.fsm import IllegalTransition, Machine

EVENTS = tuple(event for region in tables.RESPONSE_REGIONS for event in region.events)


def reachable(machine_of: type[Machine] | None = None) -> dict[tuple[object, ...], list[type]]:
    """Each joint state of a response that legal events lead to, and a way there."""
    found: dict[tuple[object, ...], list[type]] = {tables.new_response_machine().states(): []}
    frontier = list(found)
    while frontier:
        state = frontier.pop()
        for event in EVENTS:
            machine = tables.new_response_machine()
            for step in found[state]:
                machine.fire(step())
            try:
                machine.fire(event())
            except IllegalTransition:
                continue
            if machine.states() not in found:
                found[machine.states()] = [*found[state], event]
                frontier.append(machine.states())
    return found


def test_these_are_all_the_states_of_a_response():
    assert set(reachable()) == {
        (Progress.GENERATING, Playback.SILENT),
        (Progress.GENERATING, Playback.PLAYING),
        (Progress.GENERATING, Playback.CUT),
        *itertools.product(
            (Progress.COMPLETED, Progress.INCOMPLETE, Progress.FAILED),
            (Playback.DRAINING, Playback.HEARD, Playback.CUT),
        ),
        (Progress.CANCELLED, Playback.CUT),
    }


def test_whatever_happens_a_response_is_finished_once_and_its_sound_ends_once():
    for path in itertools.product(EVENTS, repeat=5):
        machine, effects = tables.new_response_machine(), []
        for event in path:
            try:
                effects += machine.fire(event())
            except IllegalTransition:
                break
        assert effects.count(Effect.FINISH) <= 1
        assert effects.count(Effect.TELL_AUDIO_STARTED) <= 1
        ended = effects.count(Effect.TELL_AUDIO_STOPPED) + effects.count(Effect.CUT_AUDIO)
        assert ended <= effects.count(Effect.TELL_AUDIO_STARTED)
        progress, playback = machine.state(Progress), machine.state(Playback)
        assert (Effect.FINISH in effects) == (progress is not Progress.GENERATING)
        if progress is not Progress.GENERATING and playback in (Playback.HEARD, Playback.CUT):
            assert ended == effects.count(Effect.TELL_AUDIO_STARTED), "what was begun has ended"


@pytest.mark.parametrize("region", [*tables.SESSION_REGIONS, *tables.RESPONSE_REGIONS])
def test_every_cell_is_written(region):
    for state, row in region.rows.items():
        assert len(row) == len(region.events), state

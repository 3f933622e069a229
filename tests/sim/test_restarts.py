"""Processes die in mid-call."""

from __future__ import annotations

import pytest
from sim.agents import EchoAttachment, EchoBackend
from sim.caller import Caller, Habit
from sim.scenarios import CALM, HARSH
from sim.world import World

from protocol.agentlink import MediaRecord
from protocol.codecs import OPUS


def attachment(world: World) -> EchoAttachment:
    assert isinstance(world.backend, EchoBackend)
    [only] = world.backend.attachments.values()
    return only


def speak(world: World, frame: int = 0) -> None:
    """The agent talks without end, whether it hears anything or not."""
    attachment(world).post(MediaRecord(1, frame * OPUS.frame_samples, 0, OPUS.silence))
    world.after(0.02, lambda: speak(world, frame + 1))


def longest_silence(caller: Caller, since: float) -> float:
    heard = [time for time in caller.heard_at if time >= since - 0.02]
    return max(after - before for before, after in zip(heard, heard[1:]))  # noqa: RUF007


@pytest.mark.slow
def test_a_restarted_relay_has_a_talking_call_back_with_the_next_frame():
    world = World(1, up=CALM)
    caller = world.talk()
    speak(world)
    world.run_for(3)
    killed = world.now
    world.kill_relay()
    world.after(0.5, world.start_relay)
    world.run_for(3)
    assert longest_silence(caller, killed) < 0.5 + 0.045
    assert world.relay is not None
    assert world.relay.learned == 1


@pytest.mark.slow
@pytest.mark.parametrize("habit", Habit)
def test_a_restarted_relay_has_an_echoed_call_back_before_anybody_checks(habit: Habit):
    world = World(1, up=CALM)
    caller = world.talk(world.new_caller(habit))
    world.run_for(3)
    killed = world.now
    world.kill_relay()
    world.after(0.5, world.start_relay)
    world.run_for(0.5 + 0.05 + 0.005)  # a hello every 50 ms; its answer and the announcement at once
    assert world.relay is not None
    assert world.relay.learned == 1
    world.run_for(3)
    assert caller.call.failure is None
    # A frame may come 20 ms later, and the transceiver's jitter buffer waits for those that were lost before it.
    assert longest_silence(caller, killed) < 0.5 + 0.05 + 0.02 + 0.1


@pytest.mark.slow
@pytest.mark.parametrize(("habit", "most"), [(Habit.CHROMIUM, 3.3), (Habit.FIREFOX, 6.1), (Habit.OLD_PION, 4.5)])
def test_a_restarted_relay_has_a_silent_call_back_with_the_next_check(habit: Habit, most: float):
    world = World(1, up=CALM)
    caller = world.talk(world.new_caller(habit))
    world.run_for(3)
    world.kill_relay()
    world.start_relay()
    world.run_for(10)
    assert caller.call.failure is None
    assert caller.call.audio.longest_gap < most + 0.1


@pytest.mark.slow
def test_a_relay_may_be_away_for_twenty_seconds_on_a_bad_network():
    world = World(1, up=HARSH)
    caller = world.talk()
    world.run_for(2)
    world.kill_relay()
    world.after(20, world.start_relay)
    world.run_for(40)
    assert caller.call.failure is None
    assert world.now - caller.heard_at[-1] < 0.5


@pytest.mark.slow
def test_a_transceiver_that_dies_costs_its_calls_and_no_others():
    world = World(1, up=CALM)
    lost = world.talk()
    world.run_for(1)
    world.kill_transceiver()
    world.after(1.0, world.start_transceiver)
    world.run_for(1.5)
    fresh = world.talk()
    world.run_for(30)
    assert lost.call.failure == "consent_expired"
    assert fresh.call.failure is None
    assert fresh.call.audio.missing <= 5
    assert fresh.call.audio.longest_gap < 0.05


@pytest.mark.slow
def test_an_agent_that_dies_is_replaced_and_the_call_goes_on():
    world = World(1, up=CALM)
    caller = world.talk()
    world.run_for(2)
    backend = world.backend
    assert isinstance(backend, EchoBackend)
    backend.crash()
    world.after(0.8, backend.restart)
    world.run_for(5)
    assert caller.call.failure is None
    assert backend.opened == 2
    assert 0.8 <= caller.call.audio.longest_gap < 0.8 + 0.5 + 0.1  # the call is offered again every half second
    assert world.now - caller.heard_at[-1] < 0.1

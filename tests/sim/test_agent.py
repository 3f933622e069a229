"""Calls with the real agent behind the real link in the loop: WebSocket, framing, tasks and all."""

from __future__ import annotations

import pytest
from sim.linked import LinkedWorld, simulate
from sim.scenarios import CALM, HARSH

from agent.agents.echo import echo


@pytest.mark.slow
def test_a_call_through_a_real_agent_loses_nothing_on_a_good_network():
    async def film(world: LinkedWorld) -> None:
        caller = world.dial()
        await world.live_until(lambda: caller.call.is_ready, 5)
        assert caller.setup_seconds < 0.3
        await world.live_for(10)
        caller.call.stop_talking(world.now)
        await world.live_for(0.5)
        audio, data = caller.call.audio, caller.call.data
        assert (audio.missing, audio.duplicated, audio.corrupt) == (0, 0, 0)
        assert audio.received > 490
        assert (data.received, data.pending) == (data.sent, {})
        world.hang_up(caller)
        await world.live_for(1)
        assert world.statistics.calls_ended == {"hangup": 1}

    simulate(1, echo, film, up=CALM)


@pytest.mark.slow
def test_an_agent_whose_process_dies_is_joined_again_when_it_is_back():
    async def film(world: LinkedWorld) -> None:
        caller = world.dial()
        await world.live_until(lambda: caller.call.is_ready, 5)
        await world.live_for(1)
        world.kill_agent()
        await world.live_for(1.5)
        silent = world.now - caller.heard_at[-1]
        assert silent > 1.4
        world.start_agent()
        back = await world.live_until(lambda: world.now - caller.heard_at[-1] < 0.1, 4)
        assert back, "the link is dialled again after at most two and a half seconds, the call offered every half"
        await world.live_for(2)
        assert caller.call.failure is None
        assert world.statistics.calls_started == 2
        assert world.now - caller.heard_at[-1] < 0.1

    simulate(2, echo, film, up=CALM)


@pytest.mark.slow
def test_a_film_with_an_agent_replays_too():
    async def film(world: LinkedWorld) -> tuple[str, int]:
        caller = world.dial()
        await world.live_for(3)
        return world.trace, caller.call.audio.received

    assert simulate(7, echo, film, up=HARSH) == simulate(7, echo, film, up=HARSH)

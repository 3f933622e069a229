"""Paths that swallow datagrams of more than 600 bytes, without a word."""

from __future__ import annotations

import pytest
from sim.agents import EchoBackend
from sim.world import World

from udpio import Conditions

HOLE = Conditions(delay=0.02, mtu=600)
MESSAGE = bytes(range(256)) * 256  # 64 KiB
CLEAR = Conditions(delay=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(("up", "down"), [(HOLE, HOLE), (HOLE, CLEAR), (CLEAR, HOLE)], ids=["both", "up", "down"])
def test_a_call_is_set_up_and_64_kib_pass_both_ways(up: Conditions, down: Conditions):
    world = World(1, up=up, down=down)
    caller = world.talk()
    assert caller.setup_seconds < 5
    assert caller.call.say(MESSAGE, world.now)
    world.run_until(lambda: MESSAGE not in caller.call.data.pending, 10)
    assert MESSAGE not in caller.call.data.pending  # it came back
    backend = world.backend
    assert isinstance(backend, EchoBackend)
    assert MESSAGE in next(iter(backend.attachments.values())).heard
    assert caller.call.data.corrupt == 0

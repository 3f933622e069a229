"""Offers that nobody follows up: what each costs, how many there may be, and that nothing of them stays."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio
import trio.testing
from hostile_rig import Rig, callers

from transceiver.signalling import CallRequest

MOST_BYTES = 8 * 1024
OURS = ("protocol.", "transceiver.")


def an_offer(rig: Rig) -> bytes:
    return callers.Caller(rig.network.open("127.0.0.50")).offer().encode()


@pytest.mark.slow
async def test_a_half_open_call_costs_at_most_8_kib_and_no_task(autojump_clock: trio.testing.MockClock) -> None:
    rig = Rig(autojump_clock, max_sessions=2000, max_half_open=2000)
    rig.backend.mood = "silent"  # it is asked, and has not answered yet
    offer = an_offer(rig)

    def place(count: int) -> None:
        for _ in range(count):
            rig.registry.create(CallRequest(offer))
            rig.engine.turn(rig.now)
        gc.collect()

    place(50)
    tasks = trio.lowlevel.current_statistics().tasks_living
    tracemalloc.start()
    try:
        place(50)  # so that what grows by leaps has leapt
        before = tracemalloc.get_traced_memory()[0]
        place(200)
        each = (tracemalloc.get_traced_memory()[0] - before) / 200
    finally:
        tracemalloc.stop()
    print(f"\na half-open call: {each:.0f} bytes")
    assert each <= MOST_BYTES
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert len(rig.registry.half_open) == 300


@contextmanager
def without_collector() -> Iterator[list[Any]]:
    """What only the collector could have freed."""
    left: list[Any] = []
    gc.collect()
    gc.disable()
    try:
        yield left
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left += gc.garbage
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize("talks", [True, False], ids=["a call", "an offer without a call"])
async def test_what_ended_is_gone_without_the_garbage_collector(
    autojump_clock: trio.testing.MockClock, talks: bool
) -> None:
    """Its full collections stop every call for as long as it looks at all of them, so they must be needed by none."""
    rig = Rig(autojump_clock)

    def one() -> weakref.ref[Any]:
        caller, session = rig.live() if talks else rig.offer()
        if talks:
            assert rig.echoes(caller) == 3
            caller.say("goodbye")
            rig.wait(0.1)
            caller.hang_up()
            rig.wait(2)
        rig.forget(caller)
        rig.wait(31, 0.5)
        assert session.released
        rig.backend.attachments.clear()
        return weakref.ref(session)

    one()  # what is made once
    with without_collector() as left:
        session = one()
        assert session() is None
    kinds = Counter(f"{type(thing).__module__}.{type(thing).__qualname__}" for thing in left)
    assert [kind for kind in kinds if kind.startswith(OURS)] == []

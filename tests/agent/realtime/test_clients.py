"""Who reads the events of a session, in virtual time."""

from __future__ import annotations

import json

import trio
from realtime_client import OFFICIAL
from trio.abc import Clock

from agent.realtime.clients import CALLER, MAX_EARLY_EVENTS, MAX_WAITING_BYTES, ROOM_BYTES, Clients

FIRST = 0x10000


class World:
    """Takes events; those in `blocked` take none."""

    def __init__(self) -> None:
        self.taken: dict[int | None, list[str]] = {}
        self.blocked: set[int | None] = set()
        self.lost = 0
        self.clients = Clients(self.send, self.lose)

    async def send(self, data: str, channel: int | None) -> bool:
        while channel in self.blocked:
            await trio.sleep(0.01)
        self.taken.setdefault(channel, []).append(data)
        return True

    def lose(self) -> None:
        self.lost += 1


async def test_an_event_for_all_reaches_all_and_one_for_one_reaches_that_one(
    autojump_clock: Clock, nursery: trio.Nursery
):
    world = World()
    clients = world.clients
    nursery.start_soon(clients.write_to_caller)
    clients.put("before", None)
    clients.join(FIRST, nursery)
    clients.join(FIRST + 1, nursery)
    for data, number in (("all", None), ("caller", CALLER), ("one", FIRST), ("nobody", FIRST + 7)):
        clients.put(data, number)
    await trio.sleep(1)
    assert world.taken == {FIRST: ["all", "one"], FIRST + 1: ["all"]}
    clients.reach_caller()
    clients.leave(FIRST + 1)
    clients.put("later", None)
    await trio.sleep(1)
    assert world.taken == {
        None: ["before", "all", "caller", "later"],
        FIRST: ["all", "one", "later"],
        FIRST + 1: ["all"],
    }
    assert [clients.number_of(channel) for channel in (0, 1, 65534, FIRST, FIRST + 9)] == [0, 0, 0, FIRST, FIRST + 9]


async def test_a_controller_that_takes_nothing_holds_up_nobody_and_is_told_what_it_missed(
    autojump_clock: Clock, nursery: trio.Nursery
):
    world = World()
    world.clients.reach_caller()
    nursery.start_soon(world.clients.write_to_caller)
    for number in (FIRST, FIRST + 1):
        world.clients.join(number, nursery)
    world.blocked = {FIRST}
    count = MAX_WAITING_BYTES // 100_000 + 3
    for _ in range(count):
        world.clients.put("x" * 100_000, None)
        await trio.sleep(0.01)
    assert world.clients.counters == {"missed": 1}
    assert len(world.taken[None]) == len(world.taken[FIRST + 1]) == count
    world.blocked.clear()
    await trio.sleep(1)
    first, notice, *rest = world.taken[FIRST]
    OFFICIAL.validate_json(notice)
    assert json.loads(notice)["error"]["code"] == "events_missed"
    assert {first, *rest} == {"x" * 100_000}
    assert 1 <= len(rest) < 5
    assert not world.lost


async def test_a_callers_client_that_takes_nothing_is_lost_once(autojump_clock: Clock, nursery: trio.Nursery):
    world = World()
    world.clients.reach_caller()
    nursery.start_soon(world.clients.write_to_caller)
    world.blocked = {None}
    for _ in range(MAX_WAITING_BYTES // 100_000 + 5):
        world.clients.put("x" * 100_000, None)
    assert world.lost == 1


async def test_events_for_a_caller_who_cannot_be_reached_yet_wait_within_bounds(
    autojump_clock: Clock, nursery: trio.Nursery
):
    world = World()
    nursery.start_soon(world.clients.write_to_caller)
    for number in range(MAX_EARLY_EVENTS + 5):
        world.clients.put(str(number), None)
    assert world.clients.counters == {"early": 5}
    world.clients.reach_caller()
    await trio.sleep(1)
    assert len(world.taken[None]) == MAX_EARLY_EVENTS


async def test_sound_waits_for_room(autojump_clock: Clock, nursery: trio.Nursery):
    world = World()
    world.clients.reach_caller()
    nursery.start_soon(world.clients.write_to_caller)
    await world.clients.wait_room()
    world.blocked = {None}
    world.clients.put("taken", None)
    await trio.sleep(0.1)
    world.clients.put("x" * ROOM_BYTES, None)
    with trio.move_on_after(5) as scope:
        await world.clients.wait_room()
    assert scope.cancelled_caught
    world.blocked.clear()
    with trio.fail_after(1):
        await world.clients.wait_room()


async def test_many_bytes_before_a_channel_opens_are_dropped_and_do_not_end_the_call(
    autojump_clock: Clock, nursery: trio.Nursery
):
    world = World()
    nursery.start_soon(world.clients.write_to_caller)
    for _ in range(MAX_WAITING_BYTES // 100_000 + 5):
        world.clients.put("x" * 100_000, None)
    assert world.clients.counters["early"] > 0
    assert not world.lost
    with trio.fail_after(1):
        await world.clients.wait_sent()
    world.clients.reach_caller()
    await world.clients.wait_sent()
    assert world.taken[None]

"""The same world with the agent's own process in it: the real link, over a WebSocket in memory, and a real agent behind it.

The world's clock is trio's, too. Each step of the world is one turn of everything that has no tasks; then the tasks (link,
writer, reader, the agent's function) run until all of them wait, and time moves on to the next deadline of either.
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio
import trio.testing
from sim.world import World

from agent.link import Link
from agent.live import Agent
from agent.statistics import Statistics
from protocol.agentlink import MAX_MESSAGE_BYTES
from service.websocket import accept
from transceiver.backends.agent_link import AgentLink
from transceiver.backends.base import Inbox
from transceiver.backends.pool import AgentPool
from udpio import Conditions

__all__ = ["LinkedWorld", "simulate"]

Result = TypeVar("Result")


class _Clock(trio.abc.Clock):
    """Shows the time of the world; the world lets it pass."""

    def __init__(self) -> None:
        self.now = 1000.0

    def start_clock(self) -> None:
        pass

    def current_time(self) -> float:
        return self.now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return 0.0 if deadline <= self.now else math.inf


class _MemoryLink(AgentLink):
    """Dials the agent of this process."""

    reach: Callable[[], trio.abc.Stream]

    async def dial(self) -> trio.abc.Stream:  # type: ignore[override]
        await trio.lowlevel.checkpoint()
        return self.reach()


class LinkedWorld(World):
    """Made by `simulate`. Its time passes in `live_for` and `live_until`."""

    def __init__(self, seed: object, agent: Agent, clock: _Clock, nursery: trio.Nursery, up: Conditions) -> None:
        self.statistics = Statistics()
        self._agent = agent
        self._clock = clock
        self._nursery = nursery
        self._process: trio.CancelScope | None = None
        self._door: trio.MemorySendChannel[trio.abc.Stream] | None = None
        super().__init__(seed, up=up, start=clock.now, backend=self._new_pool)
        assert self.engine is not None
        self.engine.on_turn_end = self.pool.flush

    def _new_pool(self, inbox: Inbox) -> AgentPool:
        self.pool = AgentPool((), "simulated", inbox)
        link = _MemoryLink("ws://agent/", "simulated", inbox, lambda: None)
        link.reach = self._knock
        self.pool.links.append(link)
        self._nursery.start_soon(self.pool.run)
        return self.pool

    # The agent's process

    def start_agent(self) -> None:
        self._door, streams = trio.open_memory_channel[trio.abc.Stream](8)
        self._process = trio.CancelScope()
        self._nursery.start_soon(self._run_agent, streams, self._process)

    def kill_agent(self) -> None:
        """Its connections break; nobody answers where it was."""
        assert self._process is not None
        self._door = None
        self._process.cancel()

    def _knock(self) -> trio.abc.Stream:
        if self._door is None:
            raise OSError("connection refused")
        near, far = trio.testing.memory_stream_pair()
        self._door.send_nowait(far)
        return near

    async def _run_agent(self, streams: trio.MemoryReceiveChannel[trio.abc.Stream], process: trio.CancelScope) -> None:
        with process:
            async with trio.open_nursery() as nursery:
                async for stream in streams:
                    nursery.start_soon(self._serve, stream)

    async def _serve(self, stream: trio.abc.Stream) -> None:
        try:
            async with trio.open_nursery() as nursery:
                connection = await accept(nursery, stream, max_message_bytes=MAX_MESSAGE_BYTES)
                assert connection is not None
                await Link(connection, self._agent, "simulated", self.statistics, 100).run()
        finally:
            await trio.aclose_forcefully(stream)

    # Time

    async def live_for(self, seconds: float) -> None:
        await self.live_until(lambda: False, seconds)

    async def live_until(self, condition: Callable[[], bool], limit: float) -> bool:
        """Whether it came true within `limit` seconds."""
        end = self.now + limit
        while True:
            await trio.testing.wait_all_tasks_blocked()
            if condition():
                return True
            tasks = self.now + trio.lowlevel.current_statistics().seconds_to_next_deadline
            due = min(self.next_timeout(), tasks)
            if due > end:
                self.now = self._clock.now = end
                return condition()
            self._clock.now = max(self.now, due)
            if due < tasks:
                self.step()
            else:
                self.now = self._clock.now


def simulate(seed: int, agent: Agent, film: Callable[[LinkedWorld], Awaitable[Result]], *, up: Conditions) -> Result:
    """Run `film` in a world with this agent."""

    async def main(clock: _Clock) -> Result:
        # Who of several tasks runs first is trio's dice otherwise.
        random.seed(seed)
        async with trio.open_nursery() as nursery:
            world = LinkedWorld(seed, agent, clock, nursery, up)
            world.start_agent()
            await world.live_until(lambda: world.pool.links[0].is_usable, 5)
            result = await film(world)
            nursery.cancel_scope.cancel()
        return result

    clock = _Clock()
    run = trio._core._run
    deterministic, run._ALLOW_DETERMINISTIC_SCHEDULING = run._ALLOW_DETERMINISTIC_SCHEDULING, True
    run._r.seed(seed)
    try:
        return trio.run(main, clock, clock=clock, strict_exception_groups=True)
    finally:
        run._ALLOW_DETERMINISTIC_SCHEDULING = deterministic

"""Finding the agents to run: a built-in one by its name, anybody's own by `module:function`; and the choice among several."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from prometheus_client.core import Metric

from agent.agents import AGENTS, MADE
from agent.call import Call
from agent.config import AgentConfig
from agent.lifetime import lifetime_of
from agent.live import Agent, names_over_websocket
from agent.realtime.line import Line
from agent.realtime.registry import PartUnavailable

__all__ = ["AgentNotFound", "Switchboard", "load_agent", "load_agents"]


class AgentNotFound(Exception):
    """One sentence that says what is wrong with the name."""


class Switchboard:
    """An agent that hands each call to the one that the caller's session names as its `model`, else to the first."""

    def __init__(self, agents: dict[str, Agent]) -> None:
        self._agents = agents
        self._by_websocket = {name: agent for name, agent in agents.items() if names_over_websocket(agent, name)}
        self.over_websocket = tuple(self._by_websocket)
        """Those of them that serve sessions by WebSocket: none else is handed any."""
        spoken = [codecs for agent in agents.values() if (codecs := getattr(agent, "codecs", ()))]
        self.codecs: tuple[str, ...] = tuple(
            name for name in (spoken[0] if spoken else ()) if all(name in other for other in spoken)
        )
        """What all of them understand, in the order of the first; () if none has a wish."""

    @asynccontextmanager
    async def lifetime(self) -> AsyncIterator[None]:
        """That of all of them."""
        async with AsyncExitStack() as stack:
            for agent in self._agents.values():
                await stack.enter_async_context(lifetime_of(agent))
            yield

    def metrics(self) -> Iterable[Metric]:
        """Those of all of them."""
        for agent in self._agents.values():
            yield from getattr(agent, "metrics", tuple)()

    async def __call__(self, call: Call | Line) -> None:
        agents: dict[str, Any] = self._agents if isinstance(call, Call) else self._by_websocket
        model = (call.session or {}).get("model")
        await agents[model if isinstance(model, str) and model in agents else next(iter(agents))](call)


def load_agents(names: Sequence[str], config: AgentConfig | None = None) -> Agent:
    """One agent that is all of these; the first answers whoever names none of them. Raises as `load_agent` does."""
    agents = {name: load_agent(name, config) for name in names}
    if len(agents) == 1:
        return agents[names[0]]
    switchboard = Switchboard(agents)
    if not switchboard.codecs and any(getattr(agent, "codecs", ()) for agent in agents.values()):
        raise AgentNotFound(f"{', '.join(names)} have no codec in common")
    return switchboard


def load_agent(name: str, config: AgentConfig | None = None) -> Agent:
    """The async function that serves a call. Raises AgentNotFound; ConfigError if it cannot be with this configuration."""
    if name in AGENTS:
        return AGENTS[name]
    if name in MADE:
        try:
            return MADE[name](config or AgentConfig())
        except PartUnavailable as error:
            raise AgentNotFound(str(error)) from None
    module_name, separator, function_name = name.partition(":")
    if not separator:
        raise AgentNotFound(f"{name!r} is none of {', '.join((*AGENTS, *MADE))}, nor of the form module:function")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise AgentNotFound(f"no module {error.name!r} for {name!r}") from None
    except (TypeError, ValueError):
        raise AgentNotFound(f"{module_name!r} is no module's name") from None
    function = getattr(module, function_name, None)
    if not inspect.iscoroutinefunction(function):
        raise AgentNotFound(f"{module_name} has no async function {function_name!r}")
    agent: Agent = function
    return agent

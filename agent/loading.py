"""Finding the agents to run: a built-in one by its name, anybody's own by `module:function`; and the choice among several.

Some that are built in are made for a configuration: `CONFIGURED`.
"""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable, Iterable, Sequence

from prometheus_client.core import Metric

from agent.agents import AGENTS
from agent.agents.upstream import make_upstream
from agent.call import Call
from agent.config import AgentConfig
from agent.live import Agent
from agent.upstream.config import AccessError
from service.config import ConfigError

__all__ = ["CONFIGURED", "AgentNotFound", "Switchboard", "load_agent", "load_agents"]


class AgentNotFound(Exception):
    """One sentence that says what is wrong with the name."""


class Switchboard:
    """An agent that hands each call to the one that the caller's session names as its `model`, else to the first."""

    def __init__(self, agents: dict[str, Agent]) -> None:
        self._agents = agents
        self._first = next(iter(agents.values()))
        spoken = [codecs for agent in agents.values() if (codecs := getattr(agent, "codecs", ()))]
        self.codecs: tuple[str, ...] = tuple(
            name for name in (spoken[0] if spoken else ()) if all(name in other for other in spoken)
        )
        """What all of them understand, in the order of the first; () if none has a wish."""

    def metrics(self) -> Iterable[Metric]:
        """Of those that count."""
        for agent in self._agents.values():
            yield from getattr(agent, "metrics", tuple)()

    async def __call__(self, call: Call) -> None:
        model = (call.session or {}).get("model")
        agent = self._agents.get(model, self._first) if isinstance(model, str) else self._first
        await agent(call)


def load_agents(names: Sequence[str], config: AgentConfig | None = None) -> Agent:
    """One agent that is all of these; the first answers whoever names none of them. Raises as `load_agent` does."""
    agents = {name: load_agent(name, config) for name in names}
    if len(agents) == 1:
        return agents[names[0]]
    switchboard = Switchboard(agents)
    if not switchboard.codecs and any(getattr(agent, "codecs", ()) for agent in agents.values()):
        raise AgentNotFound(f"{', '.join(names)} have no codec in common")
    return switchboard


def _upstream(config: AgentConfig) -> Agent:
    try:
        return make_upstream(config.upstream, os.environ)
    except AccessError as error:
        raise ConfigError(f"agent.upstream.{error.key}", str(error)) from None


CONFIGURED: dict[str, Callable[[AgentConfig], Agent]] = {"upstream": _upstream}


def load_agent(name: str, config: AgentConfig | None = None) -> Agent:
    """The async function that serves a call. Raises AgentNotFound; ConfigError if it cannot be with this configuration."""
    if name in AGENTS:
        return AGENTS[name]
    if name in CONFIGURED:
        return CONFIGURED[name](config or AgentConfig())
    module_name, separator, function_name = name.partition(":")
    if not separator:
        raise AgentNotFound(f"{name!r} is none of {', '.join([*AGENTS, *CONFIGURED])}, nor of the form module:function")
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

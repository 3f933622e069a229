"""Finding the agent to run: a built-in one by its name, anybody's own by `module:function`."""

from __future__ import annotations

import importlib
import inspect

from agent.agents import AGENTS, MADE
from agent.config import AgentConfig
from agent.live import Agent
from agent.realtime.registry import PartUnavailable

__all__ = ["AgentNotFound", "load_agent"]


class AgentNotFound(Exception):
    """One sentence that says what is wrong with the name."""


def load_agent(name: str, config: AgentConfig | None = None) -> Agent:
    """The async function that serves a call. Raises AgentNotFound."""
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

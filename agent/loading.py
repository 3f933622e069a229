"""Finding the agent to run: a built-in one by its name, anybody's own by `module:function`."""

from __future__ import annotations

import importlib
import inspect

from agent.agents import AGENTS
from agent.live import Agent

__all__ = ["AgentNotFound", "load_agent"]


class AgentNotFound(Exception):
    """One sentence that says what is wrong with the name."""


def load_agent(name: str) -> Agent:
    """The async function that serves a call."""
    if name in AGENTS:
        return AGENTS[name]
    module_name, separator, function_name = name.partition(":")
    if not separator:
        raise AgentNotFound(f"{name!r} is none of {', '.join(AGENTS)}, nor of the form module:function")
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

"""The agents that come with Antiphon. To add one: a file with an async function, and its entry in `AGENTS`; or with a function
that makes one from the configuration, and its entry in `MADE`."""

from __future__ import annotations

from collections.abc import Callable

from agent.agents.echo import echo
from agent.agents.meter import meter
from agent.agents.parrot import parrot
from agent.agents.realtime import realtime
from agent.agents.upstream import configured_upstream
from agent.agents.voice import make_voice
from agent.config import AgentConfig
from agent.live import Agent

__all__ = ["AGENTS", "MADE", "configured_upstream", "echo", "make_voice", "meter", "parrot", "realtime"]

AGENTS: dict[str, Agent] = {"echo": echo, "meter": meter, "parrot": parrot, "realtime": realtime}
MADE: dict[str, Callable[[AgentConfig], Agent]] = {"voice": make_voice, "upstream": configured_upstream}
"""These raise PartUnavailable or ConfigError."""

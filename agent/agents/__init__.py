"""The agents that come with Antiphon. To add one: a file with an async function, and its entry in `AGENTS`."""

from __future__ import annotations

from agent.agents.echo import echo
from agent.agents.meter import meter
from agent.agents.parrot import parrot
from agent.agents.realtime import realtime
from agent.live import Agent

__all__ = ["AGENTS", "echo", "meter", "parrot", "realtime"]

AGENTS: dict[str, Agent] = {"echo": echo, "meter": meter, "parrot": parrot, "realtime": realtime}

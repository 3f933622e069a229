"""`upstream`: bridges each call to a Realtime service that is reached by WebSocket, as `[agent.upstream]` says.

The hosted service, or any other that speaks its API: agent/upstream.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from agent.call import Call
from agent.codecs import needs_pcm
from agent.config import AgentConfig
from agent.live import Agent
from agent.upstream.bridge import bridge
from agent.upstream.config import AccessError, UpstreamConfig, find_access
from agent.upstream.connection import Dialler, dial
from agent.upstream.statistics import UpstreamStatistics
from service.config import ConfigError

__all__ = ["configured_upstream", "make_upstream"]


def configured_upstream(config: AgentConfig) -> Agent:
    """Raises ConfigError."""
    try:
        return make_upstream(config.upstream, os.environ)
    except AccessError as error:
        raise ConfigError(f"agent.upstream.{error.key}", str(error)) from None


def make_upstream(config: UpstreamConfig, environ: Mapping[str, str], dialler: Dialler = dial) -> Agent:
    """The agent for this configuration. Raises AccessError when a call could not be bridged with it."""
    access = find_access(config, environ)
    statistics = UpstreamStatistics()

    @needs_pcm
    async def upstream(call: Call) -> None:
        await bridge(call, config, access, dialler, statistics)

    agent: Any = upstream
    agent.metrics = statistics.metrics
    return upstream

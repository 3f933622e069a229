"""`upstream`: bridges each call to a Realtime service that is reached by WebSocket, as `[agent.upstream]` says.

The hosted service, or any other that speaks its API: agent/upstream.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.call import Call
from agent.codecs import needs_pcm
from agent.live import Agent
from agent.upstream.bridge import bridge
from agent.upstream.config import UpstreamConfig, find_access
from agent.upstream.connection import Dialler, dial
from agent.upstream.statistics import UpstreamStatistics

__all__ = ["make_upstream"]


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

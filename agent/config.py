"""The `[agent]` section."""

from __future__ import annotations

import msgspec

from agent.openai_http.config import OpenAiConfig
from agent.upstream.config import UpstreamConfig
from protocol.agentlink import MAX_AGENTS
from service.addresses import parse_host_port

__all__ = ["AgentConfig"]


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The `[agent]` section."""

    agent: str = "parrot"
    """`echo`, `meter`, `parrot`, `realtime`, `voice`, `upstream`, or your own: `module:function`."""
    also: tuple[str, ...] = ()
    """Further agents of the same process, for callers whose session names one as its `model`: `echo,parrot`."""
    listen: str = "127.0.0.1:8790"
    """Where transceivers connect by WebSocket; keep it on a private network."""
    admin: str = "127.0.0.1:0"
    max_calls: int = 1000
    """Calls at once; beyond them a call is refused and the transceiver tries another agent."""
    detector: str = "webrtcvad"
    """What finds where turns begin and end, for the agent `voice`."""
    recognizer: str = "pocketsphinx"
    """What understands the caller's words, for the agent `voice`; `none`: nothing does."""
    dialogue: str = "small"
    """What answers them."""
    speaker: str = "espeak"
    """What says the answers."""
    greets: bool = True
    """Whether the agent `voice` speaks first."""
    openai: OpenAiConfig = OpenAiConfig()
    drain_seconds: float = 30.0
    """For calls to end by themselves once the process has been told to go."""
    upstream: UpstreamConfig = msgspec.field(default_factory=UpstreamConfig)

    def __post_init__(self) -> None:
        for key in ("listen", "admin"):
            try:
                parse_host_port(getattr(self, key))
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from None
        names = (self.agent, *self.also)
        if len(set(names)) < len(names) or len(names) > MAX_AGENTS:
            raise ValueError(f"also: at most {MAX_AGENTS - 1} agents, none of them twice")
        if self.max_calls < 1:
            raise ValueError("max_calls: must be at least 1")
        if not 0 <= self.drain_seconds <= 86400:
            raise ValueError("drain_seconds: must be between 0 and 86400")

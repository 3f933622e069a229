"""The agents a transceiver knows: calls are spread over the links that are up."""

from __future__ import annotations

import trio

from protocol.codecs import CODECS, Codec, codec_by_name
from transceiver.backends.agent_link import AgentLink
from transceiver.backends.base import Attachment, Call, Inbox
from transceiver.backends.internal import EchoAgent

__all__ = ["AgentPool"]

BACKENDS: tuple[tuple[str, type[AgentLink] | type[EchoAgent]], ...] = (
    ("ws:", AgentLink),
    ("wss:", AgentLink),
    ("internal:", EchoAgent),
)
"""By what the entries of `agents` begin with."""


class AgentPool:
    """`Backend` over several links."""

    def __init__(self, urls: tuple[str, ...], identity: str, inbox: Inbox, gather_seconds: float = 0.0) -> None:
        self._first_up = trio.Event()
        self.links = [
            kind(url, identity, inbox, self._first_up.set, gather_seconds)
            for url in urls
            for beginning, kind in BACKENDS
            if url.startswith(beginning)
        ]

    async def run(self) -> None:
        """Keep all links up, until cancelled."""
        async with trio.open_nursery() as nursery:
            for link in self.links:
                nursery.start_soon(link.run)

    def open(self, call: Call) -> Attachment | None:
        """Offer the call to the agent with the fewest."""
        link = min((link for link in self.links if link.is_usable), key=lambda link: link.load, default=None)
        return link.open(call) if link is not None else None

    def for_session(self, model: str | None) -> list[AgentLink]:
        """The agents that serve sessions by WebSocket, the one with the least to do first. A model that names another agent
        is not to be had there."""
        able = [
            link
            for link in self.links
            if isinstance(link, AgentLink)
            and link.is_usable
            and link.sessions
            and (model in link.sessions or model not in (link.agent, *link.also))
        ]
        return sorted(able, key=lambda link: link.load)

    def drain(self) -> None:
        for link in self.links:
            link.drain()

    def flush(self) -> None:
        for link in self.links:
            link.flush()

    async def wait_written(self) -> None:
        """Until the links have sent what waits."""
        for link in self.links:
            await link.wait_written()

    async def close(self) -> None:
        """The last word to each agent; nothing can be said to them afterwards."""
        async with trio.open_nursery() as nursery:
            for link in self.links:
                nursery.start_soon(link.close)

    async def wait_connected(self) -> None:
        """Until a link has come up for the first time."""
        await self._first_up.wait()

    @property
    def name(self) -> str:
        return ", ".join(dict.fromkeys(link.agent for link in self.links if link.connected))

    @property
    def models(self) -> tuple[str, ...]:
        """What a session's `model` may name at each agent that is up; whoever names nothing gets the first."""
        offered = [(link.agent, *link.also) for link in self.links if link.connected]
        return tuple(name for name in (offered[0] if offered else ()) if all(name in other for other in offered))

    @property
    def codecs(self) -> tuple[Codec, ...]:
        """What every agent that is up understands, in the order of the first; all of ours while none is up."""
        spoken = [link.codecs for link in self.links if link.connected and link.codecs]
        if not spoken:
            return CODECS
        known = [codec for name in spoken[0] if (codec := codec_by_name(name)) is not None]
        common = tuple(
            codec for codec in known if all(codec.name.lower() in map(str.lower, names) for names in spoken[1:])
        )
        return common or CODECS

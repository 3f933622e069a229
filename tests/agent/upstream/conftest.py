# ruff: noqa: ANN401
from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from realtime_service import Caller, Service

from agent.agents.upstream import make_upstream
from agent.upstream.config import UpstreamConfig
from protocol.codecs import PCMU, Codec


@pytest.fixture
def service(nursery: trio.Nursery) -> Service:
    return Service(nursery)


@pytest.fixture
def dial(open_link: Callable[..., Awaitable[Any]], play: Callable[..., Any], service: Service):
    """`caller = await dial()`: a call that is bridged to `service`."""

    async def dial(
        *,
        codec: Codec | None = PCMU,
        session: dict[str, Any] | None = None,
        channel: bool = True,
        **config: Any,
    ) -> Caller:
        settings = UpstreamConfig(url="ws://service/v1/realtime", model="m", **config)
        agent = make_upstream(settings, {}, service.dial)
        client = await open_link(agent)
        player = play(client, 1, codec.frame_samples if codec is not None else 160)
        await client.start_call(1, codec.name if codec is not None else "", session)
        if channel:
            await client.open_channel()
        return Caller(client, player, codec, service, agent)

    return dial

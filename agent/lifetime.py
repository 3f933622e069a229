"""What an agent needs for as long as a process serves it: connections, say, or processes of its own.

An agent's attribute `lifetime` is a function that returns an async context manager; the server is within it from before the
first call until after the last. `holding` makes that of parts: they are closed then.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial
from typing import Protocol, runtime_checkable

import trio

from agent.live import Agent

__all__ = ["Closable", "holding", "lifetime_of"]

# Implementation constants
CLOSE_SECONDS = 2.0


@runtime_checkable
class Closable(Protocol):
    async def aclose(self) -> None:
        """Once, when nobody uses it any more."""


def lifetime_of(agent: Agent) -> AbstractAsyncContextManager[object]:
    lifetime: AbstractAsyncContextManager[object] = getattr(agent, "lifetime", nullcontext)()
    return lifetime


def holding(agent: Agent, *parts: object) -> Agent:
    """The same function. Those of the parts that are Closable are closed after its last call."""
    vars(agent)["lifetime"] = partial(_closing, *parts)
    return agent


@asynccontextmanager
async def _closing(*parts: object) -> AsyncIterator[None]:
    try:
        yield
    finally:
        with trio.move_on_after(CLOSE_SECONDS, shield=True):
            for part in parts:
                if isinstance(part, Closable):
                    await part.aclose()

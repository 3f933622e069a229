"""A session of the Realtime API that came by WebSocket, from its first message to its last: the agent's function runs in it as
in a call, with a line instead of the call (agent/realtime/line.py).

1. The transceiver says `session.start`; everything after it is the client's.
2. The agent's function runs until it returns, raises, or its client is gone; then it has a few seconds to finish.
3. Pings find out that the transceiver is gone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, TypeVar

import trio

from agent.call import Call
from agent.live import is_only_call_ended
from agent.realtime.line import Line
from agent.realtime.socket_line import SocketLine
from agent.statistics import Statistics
from protocol.agentlink import LINK_VERSION, SessionStart, decode_session_start_untrusted
from protocol.errors import DecodeError
from service.logs import get_logger
from service.websocket import WebSocket, WebSocketClosed

__all__ = ["SocketSession", "over_websocket"]

log = get_logger()

# Implementation constants
START_SECONDS = 5.0
PING_SECONDS = 10.0
PONG_SECONDS = 30.0  # whoever reads slowly answers slowly, too
PROTOCOL_ERROR = 1002  # RFC 6455 §7.4.1

SessionAgent: TypeAlias = Callable[[Call | Line], Awaitable[None]]
_Agent = TypeVar("_Agent", bound=SessionAgent)


def over_websocket(agent: _Agent) -> _Agent:
    """Decorator: this agent does nothing with its call but hand it to `converse`; so sessions that come by WebSocket are
    given to it, too, as a `Line`."""
    able: Any = agent
    able.over_websocket = True
    return agent


class SocketSession:
    def __init__(self, connection: WebSocket, agent: SessionAgent, statistics: Statistics) -> None:
        self._connection = connection
        self._agent = agent
        self._statistics = statistics
        self._line: SocketLine | None = None

    async def run(self) -> None:
        start = await self._start()
        if start is None:
            return
        self._line = line = SocketLine(self._connection, start, self._statistics)
        self._statistics.calls_started += 1
        log.info("session started", call=line.id)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_alive, nursery.cancel_scope)
                with line.scope:
                    await self._run_isolated(line)
                nursery.cancel_scope.cancel()
        finally:
            reason = line.ended or "cancelled"
            self._statistics.count_end(reason)
            log.info("session ended", call=line.id, reason=reason)

    async def close(self, reason: str) -> None:
        """End it."""
        if self._line is not None:
            await self._line.end(reason)

    async def _start(self) -> SessionStart | None:
        with trio.move_on_after(START_SECONDS):
            try:
                start = decode_session_start_untrusted(await self._connection.receive())
            except WebSocketClosed:
                return None
            except DecodeError as error:
                self._statistics.drops[error.reason] += 1
            else:
                if start.version == LINK_VERSION:
                    return start
        with trio.move_on_after(START_SECONDS):
            await self._connection.close(PROTOCOL_ERROR, f"expected a session.start of version {LINK_VERSION}")
        return None

    async def _run_isolated(self, line: SocketLine) -> None:
        try:
            await self._agent(line)
            await line.end("agent_ended")
        except Exception as error:  # the one place where an agent's bugs stop
            if not is_only_call_ended(error):
                log.error("the agent failed", call=line.id, exc_info=error)
                await line.end("agent_failed")

    async def _keep_alive(self, session: trio.CancelScope) -> None:
        try:
            await self._connection.keep_alive(PING_SECONDS, PONG_SECONDS)
        except WebSocketClosed:
            return  # the reader sees it, too, after what still is to be read
        except trio.TooSlowError:
            log.warning("session lost", why="no answer to a ping")
            session.cancel()

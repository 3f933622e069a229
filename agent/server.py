"""The agent's WebSocket server: one link per transceiver, each on its own; draining."""

from __future__ import annotations

from typing import NoReturn

import trio
from trio_websocket import (
    ConnectionClosed,
    HandshakeError,
    WebSocketConnection,
    WebSocketRequest,
    wrap_server_stream,
)

from agent.link import Link
from agent.live import Agent
from agent.statistics import Statistics
from protocol.agentlink import MAX_MESSAGE_BYTES
from service.addresses import parse_host_port, to_host_port
from service.listening import open_tcp_at
from service.logs import get_logger

__all__ = ["AgentServer"]

log = get_logger()

# Implementation constants
MESSAGE_QUEUE = 64  # WebSocket messages that trio-websocket reads ahead; then TCP makes the transceiver wait
RECEIVE_BYTES = 64 * 1024
HANDSHAKE_SECONDS = 5.0
FAREWELL_SECONDS = 1.0


class AgentServer:
    """Serves one agent function to any number of transceivers."""

    def __init__(self, agent: Agent, name: str, *, max_calls: int = 1000) -> None:
        self.statistics = Statistics()
        self._agent = agent
        self._name = name
        self._max_calls = max_calls
        self._links: set[Link] = set()
        self._draining = False

    @property
    def is_draining(self) -> bool:
        return self._draining

    async def serve(self, listen: str, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> NoReturn:
        """Serve until cancelled; `task_status` gets the bound `host:port`. Raises CannotListen if it is taken."""
        listeners = await open_tcp_at(listen)
        task_status.started(to_host_port(parse_host_port(listen)[0], listeners[0].socket.getsockname()[1]))
        await trio.serve_listeners(self._handle, listeners)

    async def _handle(self, stream: trio.SocketStream) -> None:
        # The stream is ours, not serve_websocket's, which leaves it open when the other side breaks off.
        try:
            async with stream, trio.open_nursery() as nursery:
                with trio.move_on_after(HANDSHAKE_SECONDS):
                    request = await wrap_server_stream(nursery, stream, MESSAGE_QUEUE, MAX_MESSAGE_BYTES, RECEIVE_BYTES)
                    if (connection := await self._accept(request)) is not None:
                        nursery.start_soon(self._run_link, connection, nursery.cancel_scope)
                        return
                nursery.cancel_scope.cancel()
        except* (ConnectionClosed, HandshakeError):
            self.statistics.drops["link_handshake"] += 1
        except* Exception as group:  # one link's failure must not end the others
            log.error("link failed", exc_info=group)

    async def _accept(self, request: WebSocketRequest) -> WebSocketConnection | None:
        # Every browser names the page's origin, no transceiver does: a web page must not talk to a local agent.
        if any(name.lower() == b"origin" for name, _ in request.headers):
            self.statistics.drops["link_from_browser"] += 1
            await request.reject(403)
            return None
        return await request.accept()

    async def _run_link(self, connection: WebSocketConnection, scope: trio.CancelScope) -> None:
        link = Link(connection, self._agent, self._name, self.statistics, self._max_calls)
        self._links.add(link)
        try:
            if self._draining:
                link.drain()
            await link.run()
        finally:
            self._links.discard(link)
        with trio.move_on_after(FAREWELL_SECONDS):
            await connection.aclose()
        scope.cancel()

    async def drain(self, seconds: float) -> None:
        """Take no new calls, give those in progress `seconds`, then end them."""
        self._draining = True
        for link in self._links:
            link.drain()
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for link in self._links:
                    nursery.start_soon(link.wait_finished)
        with trio.move_on_after(FAREWELL_SECONDS):
            async with trio.open_nursery() as nursery:
                for link in self._links:
                    nursery.start_soon(link.close, "agent_stopped")

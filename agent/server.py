"""The agent's WebSocket server: one link per transceiver, each on its own; draining."""

from __future__ import annotations

from typing import NoReturn

import trio

from agent.lifetime import lifetime_of
from agent.link import Link
from agent.live import Agent
from agent.statistics import Statistics
from protocol.agentlink import MAX_MESSAGE_BYTES
from service import websocket
from service.addresses import parse_host_port, to_host_port
from service.listening import open_tcp_at
from service.logs import get_logger
from service.websocket import HandshakeError, WebSocket, WebSocketClosed

__all__ = ["AgentServer"]

log = get_logger()

# Implementation constants
FORBIDDEN = 403
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
        async with lifetime_of(self._agent):
            task_status.started(to_host_port(parse_host_port(listen)[0], listeners[0].socket.getsockname()[1]))
            await trio.serve_listeners(self._handle, listeners)

    async def _handle(self, stream: trio.SocketStream) -> None:
        try:
            async with stream, trio.open_nursery() as nursery:
                with trio.fail_after(HANDSHAKE_SECONDS):
                    connection = await websocket.accept(
                        nursery, stream, max_message_bytes=MAX_MESSAGE_BYTES, refuse=self._refuse_browsers
                    )
                if connection is not None:
                    await self._run_link(connection)
                nursery.cancel_scope.cancel()
        except* (WebSocketClosed, HandshakeError, trio.BrokenResourceError, trio.TooSlowError):
            self.statistics.drops["link_handshake"] += 1
        except* Exception as group:  # one link's failure must not end the others
            log.error("link failed", exc_info=group)

    def _refuse_browsers(self, headers: dict[bytes, bytes]) -> int | None:
        # Every browser names the page's origin, no transceiver does: a web page must not talk to a local agent.
        if b"origin" not in headers:
            return None
        self.statistics.drops["link_from_browser"] += 1
        return FORBIDDEN

    async def _run_link(self, connection: WebSocket) -> None:
        link = Link(connection, self._agent, self._name, self.statistics, self._max_calls)
        self._links.add(link)
        try:
            if self._draining:
                link.drain()
            await link.run()
        finally:
            self._links.discard(link)
        with trio.move_on_after(FAREWELL_SECONDS):
            await connection.close()

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

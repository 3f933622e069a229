"""The agent's WebSocket server: one link per transceiver, each on its own; sessions of the Realtime API, each on a WebSocket of
its own, at REALTIME_PATH; draining."""

from __future__ import annotations

from functools import partial
from typing import NoReturn, cast

import msgspec
import trio

from agent.lifetime import lifetime_of
from agent.link import Link
from agent.live import Agent, names_over_websocket
from agent.sessions import SessionAgent, SocketSession
from agent.statistics import Statistics
from protocol.agentlink import MAX_MESSAGE_BYTES, MAX_SESSION_MESSAGE_BYTES, REALTIME_PATH, REALTIME_PROTOCOL
from service import websocket
from service.addresses import parse_host_port, to_host_port
from service.listening import open_tcp_at
from service.logs import get_logger
from service.websocket import HandshakeError, Refusal, Request, WebSocket, WebSocketClosed

__all__ = ["AgentServer"]

log = get_logger()

# Implementation constants
FORBIDDEN, BAD_REQUEST, NOT_IMPLEMENTED, UNAVAILABLE = 403, 400, 501, 503
HANDSHAKE_SECONDS = 5.0
FAREWELL_SECONDS = 1.0


class AgentServer:
    """Serves one agent function to any number of transceivers."""

    def __init__(self, agent: Agent, name: str, *, also: tuple[str, ...] = (), max_calls: int = 1000) -> None:
        """`also`: the names of further agents that `agent` may hand a call to."""
        self.statistics = Statistics()
        self._agent = agent
        self._name = name
        self._also = also
        self._max_calls = max_calls
        self._links: set[Link] = set()
        self._sessions: set[SocketSession] = set()
        self._sessions_ended = trio.Event()  # once draining
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
                    target, replayed = await websocket.read_head(stream)
                    is_session = target.partition("?")[0] == REALTIME_PATH
                    connection = await websocket.accept(
                        nursery,
                        replayed,
                        max_message_bytes=MAX_SESSION_MESSAGE_BYTES if is_session else MAX_MESSAGE_BYTES,
                        refuse=partial(self._why_refused, is_session=is_session),
                        subprotocol=REALTIME_PROTOCOL if is_session else None,
                    )
                if connection is not None:
                    await (self._run_session if is_session else self._run_link)(connection)
                nursery.cancel_scope.cancel()
        except* (WebSocketClosed, HandshakeError, trio.BrokenResourceError, trio.TooSlowError):
            self.statistics.drops["link_handshake"] += 1
        except* Exception as group:  # one link's failure must not end the others
            log.error("link failed", exc_info=group)

    def _why_refused(self, request: Request, *, is_session: bool) -> Refusal | None:
        # Every browser names the page's origin, no transceiver does: a web page must not talk to a local agent.
        if b"origin" in request.headers:
            self.statistics.drops["link_from_browser"] += 1
            return Refusal(FORBIDDEN)
        if not is_session:
            return None
        if REALTIME_PROTOCOL not in request.subprotocols:
            return _refusal(BAD_REQUEST, "not_a_transceiver", f"The subprotocol {REALTIME_PROTOCOL} is needed.")
        if not names_over_websocket(self._agent, self._name):
            message = f"The agent {self._name!r} serves no sessions by WebSocket."
            return _refusal(NOT_IMPLEMENTED, "websocket_unsupported", message)
        if self._draining:
            return _refusal(UNAVAILABLE, "agent_draining", "The agent is going away.")
        if self.statistics.calls >= self._max_calls:
            return _refusal(UNAVAILABLE, "agent_full", "The agent has as many calls as it may have.")
        return None

    async def _run_session(self, connection: WebSocket) -> None:
        session = SocketSession(connection, cast(SessionAgent, self._agent), self.statistics)
        self._sessions.add(session)
        self.statistics.calls += 1
        try:
            await session.run()
        finally:
            self.statistics.calls -= 1
            self._sessions.discard(session)
            self._note_finished()

    def _note_finished(self) -> None:
        if self._draining and not self._sessions:
            self._sessions_ended.set()

    async def _run_link(self, connection: WebSocket) -> None:
        link = Link(connection, self._agent, self._name, self.statistics, self._max_calls, also=self._also)
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
        self._note_finished()
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._sessions_ended.wait)
                for link in self._links:
                    nursery.start_soon(link.wait_finished)
        with trio.move_on_after(FAREWELL_SECONDS):
            async with trio.open_nursery() as nursery:
                for link in self._links:
                    nursery.start_soon(link.close, "agent_stopped")
                for session in self._sessions:
                    nursery.start_soon(session.close, "agent_stopped")


def _refusal(status: int, code: str, message: str) -> Refusal:
    kind = "server_error" if status >= UNAVAILABLE else "invalid_request_error"
    error = {"message": message, "type": kind, "param": None, "code": code}
    return Refusal(status, msgspec.json.encode({"error": error}))

"""Sessions of the Realtime API that come by WebSocket: each is brought to an agent, over a WebSocket of its own, and counts as
a call.

1. It may be, if a call might (draining, the limits of all and of its key).
2. The agents that serve sessions are asked, the one with the least to do first, until one takes it; only then is the
   client's upgrade answered.
3. Events pass as they are. After `max_session`, when the process ends, and `drain` seconds after it was told to, we close.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import parse_qsl, urlencode, urlunsplit

import msgspec
import trio
from starlette.websockets import WebSocket

from protocol.agentlink import (
    LINK_VERSION,
    MAX_SESSION_MESSAGE_BYTES,
    REALTIME_PATH,
    REALTIME_PROTOCOL,
    CallClient,
    SessionStart,
    encode_message,
)
from protocol.errors import LocalError
from service import websocket as far_websocket
from service.logs import get_logger
from service.websocket import ConnectionRejected, HandshakeError, WebSocketClosed
from transceiver.backends.agent_link import AgentLink
from transceiver.backends.pool import AgentPool
from transceiver.config import Timeouts
from transceiver.registry import Registry
from transceiver.session import CloseReason
from transceiver.signalling import CallRequest, Closing, Permit, SignallingError, Usage, pipe

__all__ = ["SocketSessions"]

log = get_logger()

# Specification constants, RFC 6455 §7.4.1
NORMAL, GOING_AWAY = 1000, 1001
BUSY = 503

# Implementation constants, in seconds
CONNECT_SECONDS = 5.0
RETRY_AFTER = 5
_EXPIRED = "The session has reached its longest duration."
_ENDED_BY_AGENT = {NORMAL: "agent_ended", GOING_AWAY: "agent_stopped", 1011: "agent_failed"}


class _Session:
    def __init__(self, deadline: float) -> None:
        self.attempt = trio.CancelScope()  # to reach an agent
        self.scope = trio.CancelScope(deadline=deadline)
        self.reason = CloseReason.MAX_DURATION
        self.is_accepted = False
        self.closing: Closing | None = None

    def end(self, reason: CloseReason, at: float) -> None:
        if at < self.scope.deadline:
            self.reason, self.scope.deadline = reason, at
        if reason is CloseReason.SHUTDOWN and not self.is_accepted:
            self.attempt.cancel()


class SocketSessions:
    """`Sockets` of signalling."""

    def __init__(
        self,
        registry: Registry,
        agents: AgentPool,
        timeouts: Timeouts,
        usage: Usage,
        wall_time: Callable[[], float] = time.time,
    ) -> None:
        self.started = 0
        self.ended: Counter[str] = Counter()  # by reason
        self._registry = registry
        self._agents = agents
        self._timeouts = timeouts
        self._usage = usage
        self._wall_time = wall_time
        self._open: set[_Session] = set()

    async def serve(self, websocket: WebSocket, subprotocol: str | None, request: CallRequest) -> None:
        """Raises SignallingError."""
        start = self._start(request)
        with self._counted(request.permit):
            model = (start.session or {}).get("model")
            refusal: SignallingError | None = _no_agent(self._agents, model)
            for link in self._agents.for_session(model if isinstance(model, str) else None):
                link.sockets += 1
                try:
                    refusal = await self._serve_by(link, websocket, subprotocol, start)
                finally:
                    link.sockets -= 1
                if refusal is None:
                    return
                if self._registry.draining:
                    break
                log.info("an agent does not take a session", agent=link.url, why=refusal.message)
            assert refusal is not None
            raise refusal

    def drain(self) -> None:
        """Those that there are may finish, but soon."""
        for session in self._open:
            session.end(CloseReason.DRAINED, trio.current_time() + self._timeouts.drain)

    def shut_down(self) -> None:
        for session in self._open:
            session.end(CloseReason.SHUTDOWN, -1.0)

    @contextmanager
    def _counted(self, permit: Permit) -> Iterator[None]:
        """Raises SignallingError."""
        self._registry.check_room(permit)
        self._usage.began(permit)
        self._registry.count_socket(1)
        try:
            yield
        finally:
            self._usage.ended(permit.key)
            self._registry.count_socket(-1)

    def _start(self, request: CallRequest) -> SessionStart:
        permit = request.permit
        session = None if request.session is None else msgspec.json.decode(request.session)
        return SessionStart(
            version=LINK_VERSION,
            call_id=f"ws_{os.urandom(12).hex()}",
            session=session,
            client=CallClient(permit.key, permit.safety_identifier),
            expires_at=int(self._wall_time() + self._timeouts.max_session),
        )

    async def _serve_by(
        self, link: AgentLink, websocket: WebSocket, subprotocol: str | None, start: SessionStart
    ) -> SignallingError | None:
        """The whole session; or why this agent does not take it."""
        session = _Session(trio.current_time() + self._timeouts.max_session)
        refusal: SignallingError | None = _unreachable()  # if it is cut short
        self._open.add(session)
        try:
            with session.attempt:
                await self._connect(link, session, websocket, subprotocol, start)
        except* ConnectionRejected as group:
            refusal = _refusal(far_websocket.first_of(group))
        except* (OSError, HandshakeError, WebSocketClosed, trio.TooSlowError, LocalError):
            pass
        finally:
            self._open.discard(session)
        return refusal if not session.is_accepted else None

    async def _connect(
        self, link: AgentLink, session: _Session, websocket: WebSocket, subprotocol: str | None, start: SessionStart
    ) -> None:
        with trio.fail_after(CONNECT_SECONDS):
            stream = await link.dial()
        async with stream, trio.open_nursery() as nursery:
            with trio.fail_after(CONNECT_SECONDS):
                far = await far_websocket.connect(
                    nursery,
                    stream,
                    link.address.netloc,
                    _target(link, websocket),
                    max_message_bytes=MAX_SESSION_MESSAGE_BYTES,
                    subprotocols=[REALTIME_PROTOCOL],
                )
                await far.send([encode_message(start)])
            session.is_accepted = True
            await self._run(session, websocket, subprotocol, far, start.call_id)
            nursery.cancel_scope.cancel()

    async def _run(
        self,
        session: _Session,
        websocket: WebSocket,
        subprotocol: str | None,
        far: far_websocket.WebSocket,
        call_id: str,
    ) -> None:
        log.info("session started", call=call_id)
        self.started += 1
        reason = "cancelled"
        try:
            with session.scope:
                await websocket.accept(subprotocol)
                session.closing = await pipe(websocket, far)
            if session.closing is None:
                reason = session.reason.value
                await _close(websocket, far, session.reason)
            elif session.closing.by_client:
                reason = CloseReason.PEER_CLOSED.value
            else:
                reason = _ENDED_BY_AGENT.get(session.closing.code, "agent_lost")
        finally:
            self.ended[reason] += 1
            log.info("session ended", call=call_id, reason=reason)


async def _close(websocket: WebSocket, far: far_websocket.WebSocket, reason: CloseReason) -> None:
    """It is we who end it."""
    if reason is CloseReason.MAX_DURATION:
        error = {
            "type": "invalid_request_error",
            "code": "session_expired",
            "message": _EXPIRED,
            "param": None,
            "event_id": None,
        }
        event = {"type": "error", "event_id": f"event_{os.urandom(12).hex()}", "error": error}
        await websocket.send_text(msgspec.json.encode(event).decode())
    await websocket.close(GOING_AWAY if reason is CloseReason.SHUTDOWN else NORMAL, reason.value)
    with trio.move_on_after(1.0):
        await far.close(NORMAL, reason.value)


def _target(link: AgentLink, websocket: WebSocket) -> str:
    query = parse_qsl(link.address.query) + [(key, value) for key, value in websocket.query_params.multi_items()]
    return urlunsplit(("", "", link.address.path.rstrip("/") + REALTIME_PATH, urlencode(query), ""))


def _no_agent(agents: AgentPool, model: object) -> SignallingError:
    """Why nobody is to be asked."""
    able = {name for link in agents.links if link.connected for name in link.sessions}
    if any(link.connected for link in agents.links) and (not able or (model in agents.models and model not in able)):
        named = model if model in agents.models else agents.name
        message = f"The agent {named} serves no sessions by WebSocket: place a call by WebRTC."
        return SignallingError(501, "websocket_unsupported", message)
    return _unreachable()


def _unreachable() -> SignallingError:
    return SignallingError(BUSY, "agent_unavailable", "No agent can take a session now.", retry_after=RETRY_AFTER)


def _refusal(rejected: ConnectionRejected) -> SignallingError:
    if rejected.status_code == BUSY:
        return SignallingError(BUSY, "agent_full", "All agents are busy, or going away.", retry_after=RETRY_AFTER)
    return SignallingError(501, "websocket_unsupported", f"The agent answered with status {rejected.status_code}.")

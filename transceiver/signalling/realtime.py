"""`/v1/realtime`: WebSockets of the Realtime API.

    ?call_id=rtc_…   a controller of a call that there is (sideband.py)
    ?model=…         a session of its own; `Sockets` brings it to an agent

What cannot be is answered before the upgrade, by HTTP in the shape of all errors. Credentials are asked for both; a browser
sends them as a subprotocol, and gets `realtime` back.
"""

from __future__ import annotations

from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from protocol.agentlink import MAX_SESSION_MESSAGE_BYTES, REALTIME_PATH
from service.http import WebSocketLimits
from service.logs import get_logger
from transceiver.signalling.auth import Access
from transceiver.signalling.call_query import complete_request
from transceiver.signalling.calls import CallRequest, Calls
from transceiver.signalling.errors import SignallingError, error_response
from transceiver.signalling.permits import Permit
from transceiver.signalling.sideband import control

__all__ = ["WEBSOCKETS", "RealtimeSockets", "Sockets", "identify_controller", "upgrade_required"]

log = get_logger()

# Specification constants
SUBPROTOCOL = "realtime"
INTERNAL_ERROR = 1011  # RFC 6455 §7.4.1
WEBSOCKETS = WebSocketLimits(paths=frozenset({REALTIME_PATH}), max_message_bytes=MAX_SESSION_MESSAGE_BYTES)
"""What the HTTP server has to allow."""


class Sockets(Protocol):
    async def serve(self, websocket: WebSocket, subprotocol: str | None, request: CallRequest) -> None:
        """Accept it, and bring it to an agent, until one of them closes. Raises SignallingError if that cannot be, and
        nothing was answered yet. Of `request` there is no offer."""


class RealtimeSockets:
    def __init__(self, calls: Calls, access: Access, sockets: Sockets | None) -> None:
        """Without `sockets` there are only controllers."""
        self._calls = calls
        self._access = access
        self._sockets = sockets

    async def serve(self, websocket: WebSocket) -> None:
        """The whole life of one."""
        try:
            await self._serve(websocket)
        except SignallingError as error:
            await websocket.send_denial_response(error_response(error))
        except Exception as error:
            log.error("a WebSocket failed", exc_info=error)
            raise

    async def _serve(self, websocket: WebSocket) -> None:
        offered = websocket.scope["subprotocols"]
        subprotocol = SUBPROTOCOL if SUBPROTOCOL in offered else None
        call_id = websocket.query_params.get("call_id")
        if call_id is None:
            permit = self._access.identify(websocket.headers, offered)
            if websocket.query_params.get("intent") == "transcription":
                message = "Sessions that only transcribe are not served here."
                raise SignallingError(404, "transcription_not_served", message, param="intent")
            request = complete_request(CallRequest(b""), permit, websocket.query_params)
            if self._sockets is None:
                raise SignallingError(501, "websocket_unsupported", "There are no sessions by WebSocket here.")
            await self._sockets.serve(websocket, subprotocol, request)
            return
        controller = self._calls.control(call_id, identify_controller(self._access, websocket))
        try:
            await websocket.accept(subprotocol)
            await control(websocket, controller)
        finally:
            controller.leave()


def identify_controller(access: Access, websocket: WebSocket) -> Permit:
    """Who wants to control a call, whichever it is. Raises SignallingError."""
    permit = access.identify(websocket.headers, websocket.scope["subprotocols"])
    if permit.by_secret:
        message = "A client secret makes calls, and does not control them: use an API key."
        raise SignallingError(403, "api_key_required", message, param="Authorization")
    return permit


async def upgrade_required(_: Request) -> Response:
    response = error_response(SignallingError(426, "upgrade_required", "This place is for WebSockets."))
    response.headers["Upgrade"] = "websocket"
    response.headers["Connection"] = "Upgrade"
    return response

"""Requests that came to another worker than the one that is to answer.

Workers share the HTTP address (SO_REUSEPORT), so that the kernel gives a new connection to any of them. What is asked about a
call is brought to the worker whose number is in the call's id, over a socket that only we can reach, and answered with its
answer. So is an offer, if this worker has more calls than another (loads.py). `GET /v1/info` is answered for all workers. A
controller's WebSocket is joined to one with the worker that has its call.
"""

from __future__ import annotations

import math
import re
from urllib.parse import parse_qs

import httpx
import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from protocol.agentlink import MAX_SESSION_MESSAGE_BYTES, REALTIME_PATH
from service import websocket as far_websocket
from service.logs import get_logger
from service.websocket import ConnectionRejected, HandshakeError, WebSocketClosed
from transceiver.signalling import (
    Access,
    SignallingError,
    error_response,
    identify_controller,
    pipe,
    read_body_in_time,
)
from transceiver.workers.loads import Loads
from transceiver.workers.place import WorkerPlace

__all__ = ["Forwarder", "Siblings"]

log = get_logger()

# Specification constants
# The places of a call, and no others: behind a sibling's socket there is more than clients may ask for, and a path with dots
# in it would lead there.
PLACE = re.compile(r"/v1/realtime/calls/([^/]+)(?:/hangup)?")
CALLS, INFO = "/v1/realtime/calls", "/v1/info"
# RFC 9110 §7.6.1, and what is made anew for the next hop.
HOP_BY_HOP = frozenset(
    b"connection content-length date host keep-alive proxy-authenticate proxy-authorization te trailer transfer-encoding "
    b"upgrade".split()
)
HANDSHAKE = frozenset(b"sec-websocket-" + name for name in (b"key", b"version", b"protocol", b"extensions", b"accept"))
OURS = frozenset({b"vary"})  # what CORS, around us, says for any answer

# Implementation constants
ANSWER_SECONDS = 5.0  # for a sibling to answer: it does so within one pass of its loop
RETRY_AFTER = 1
KEEP_SECONDS = 10.0  # for which offers stay here, after a sibling did not answer one: the next would wait for it, too


class Siblings:
    """Asks workers, over their sockets. Made once: whatever may be slow about a client is slow then, not amid calls."""

    def __init__(self, place: WorkerPlace) -> None:
        # A connection is not kept: the worker may be another process by then. There is no TLS whose `verify` would matter,
        # but left alone it reads all the machine's certificates.
        limits = httpx.Limits(max_keepalive_connections=0)
        self._clients = [
            httpx.AsyncClient(
                transport=httpx.AsyncHTTPTransport(uds=place.socket_of(index), verify=False, limits=limits),
                timeout=ANSWER_SECONDS,
                trust_env=False,
            )
            for index in range(place.count)
        ]

    async def ask(
        self, index: int, method: str, target: str, headers: list[tuple[bytes, bytes]] | None = None, body: bytes = b""
    ) -> httpx.Response:
        """Raises httpx.HTTPError."""
        request = httpx.Request(method, f"http://worker{target}", headers=headers or [], content=body)
        return await self._clients[index].send(request)


class Forwarder:
    """Middleware: inside of CORS, so that an answer has those headers once."""

    def __init__(
        self, app: ASGIApp, place: WorkerPlace, loads: Loads, request_seconds: float, access: Access | None = None
    ) -> None:
        self._app = app
        self._place = place
        self._siblings = Siblings(place)
        self._loads = loads
        self._request_seconds = request_seconds
        self._access = access or Access()
        self._keep_until = -math.inf

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            owner = self._owner_of_controlled(scope)
            if owner is not None and owner != self._place.index:
                await self._join(WebSocket(scope, receive, send), owner)
                return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path, method = scope["path"], scope["method"]
        found = PLACE.fullmatch(path)
        owner = self._place.owner_of(found[1]) if found is not None else None
        response: Response | None = None
        if owner is not None and owner != self._place.index and method != "OPTIONS":
            response = await self._forward(Request(scope, receive), owner)
        elif path == CALLS and method == "POST":
            relief = self._loads.relief_for(self._place.index)
            if relief is not None and trio.current_time() >= self._keep_until:
                response, receive = await self._hand_on(Request(scope, receive), relief)
        elif path == INFO and method == "GET":
            response = await self._info()
        await (response or self._app)(scope, receive, send)

    def _owner_of_controlled(self, scope: Scope) -> int | None:
        call_ids = parse_qs(scope["query_string"].decode("latin-1")).get("call_id", [])
        return self._place.owner_of(call_ids[-1]) if call_ids and scope["path"] == REALTIME_PATH else None

    async def _join(self, websocket: WebSocket, owner: int) -> None:
        """A controller with the worker that has its call, which asks for the credentials, too: it knows whose the call is."""
        try:  # strangers cost no connection
            identify_controller(self._access, websocket)
        except SignallingError as error:
            await websocket.send_denial_response(error_response(error))
            return
        refusal: Response | None = None
        accepted = False
        target = f"{REALTIME_PATH}?{websocket.scope['query_string'].decode('latin-1')}"
        headers = [(name, value) for name, value in websocket.headers.raw if name not in HOP_BY_HOP | HANDSHAKE]
        try:
            stream = await trio.open_unix_socket(self._place.socket_of(owner))
            async with stream, trio.open_nursery() as nursery:
                with trio.fail_after(ANSWER_SECONDS):
                    far = await far_websocket.connect(
                        nursery,
                        stream,
                        "worker",
                        target,
                        max_message_bytes=MAX_SESSION_MESSAGE_BYTES,
                        subprotocols=websocket.scope["subprotocols"],
                        headers=headers,
                    )
                accepted = True
                await websocket.accept(far.subprotocol)
                await pipe(websocket, far)
                nursery.cancel_scope.cancel()
        except* OSError:  # its calls ended with it
            refusal = error_response(SignallingError(404, "call_not_found", "There is no such call.", param="call_id"))
        except* ConnectionRejected as group:
            refusal = _refusal(far_websocket.first_of(group))
        except* (HandshakeError, WebSocketClosed, trio.TooSlowError) as group:
            log.warning(
                "a controller could not be brought to another worker",
                worker=owner,
                error=repr(far_websocket.first_of(group)),
            )
            message = "The process that has this call does not answer."
            refusal = error_response(SignallingError(503, "worker_unreachable", message, retry_after=RETRY_AFTER))
        if refusal is not None and not accepted:
            await websocket.send_denial_response(refusal)

    async def _forward(self, request: Request, owner: int) -> Response:
        try:
            return await self._ask(request, owner, await read_body_in_time(request, self._request_seconds))
        except SignallingError as error:
            return error_response(error)
        except httpx.ConnectError:  # its calls ended with it
            return error_response(SignallingError(404, "call_not_found", "There is no such call.", param="call_id"))
        except httpx.HTTPError as error:
            log.warning("a request could not be brought to another worker", worker=owner, error=repr(error))
            message = "The process that has this call does not answer."
            return error_response(SignallingError(503, "worker_unreachable", message, retry_after=RETRY_AFTER))

    async def _hand_on(self, request: Request, relief: int) -> tuple[Response | None, Receive]:
        """The answer of another worker to an offer; else what is left to be done here, and the body for it."""
        try:
            body = await read_body_in_time(request, self._request_seconds)
        except SignallingError as error:
            return error_response(error), request.receive

        async def again() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        try:
            return await self._ask(request, relief, body), again
        except httpx.ConnectError:
            return None, again
        except httpx.HTTPError as error:  # it may have taken the call, which then waits for a check in vain, and ends
            log.warning("a call could not be handed on", worker=relief, error=repr(error))
            self._keep_until = trio.current_time() + KEEP_SECONDS
            return None, again

    async def _ask(self, request: Request, owner: int, body: bytes) -> Response:
        headers = [(name, value) for name, value in request.headers.raw if name not in HOP_BY_HOP]
        query = request.scope["query_string"].decode("ascii", "replace")  # `?model=`, `?dcid=`
        target = request.scope["path"] + (f"?{query}" if query else "")
        answer = await self._siblings.ask(owner, request.method, target, headers, body)
        response = Response(answer.content, answer.status_code)
        response.raw_headers = [
            (name, value)
            for name, value in ((name.lower(), value) for name, value in answer.headers.raw)
            if name not in HOP_BY_HOP and name not in OURS
        ]
        response.raw_headers.append((b"content-length", str(len(answer.content)).encode()))
        return response

    async def _info(self) -> Response:
        told: list[dict[str, object]] = []

        async def ask_one(index: int) -> None:
            try:
                answer = await self._siblings.ask(index, "GET", INFO)
            except httpx.HTTPError:  # it is being started again
                return
            told.append(answer.json())

        async with trio.open_nursery() as nursery:
            for index in range(self._place.count):
                nursery.start_soon(ask_one, index)
        if not told:  # not even we ourselves: the end
            return error_response(SignallingError(503, "worker_unreachable", "This server is going away."))
        whole = dict(told[0])
        for key in ("calls", "max_calls"):
            whole[key] = sum(int(str(one[key])) for one in told)
        whole["draining"] = all(one["draining"] for one in told)
        return JSONResponse(whole, headers={"Cache-Control": "no-store"})


def _refusal(rejected: ConnectionRejected) -> Response:
    response = Response(rejected.body or b"", rejected.status_code)
    kept = (b"content-type", b"retry-after", b"www-authenticate", b"cache-control")
    response.raw_headers += [(name.lower(), value) for name, value in rejected.headers if name.lower() in kept]
    return response

"""The signalling API as a Starlette application.

    POST   /v1/realtime/client_secrets     session → 200, a secret that a browser may place calls with
    POST   /v1/realtime/calls              offer → 201, Location, answer (application/sdp)
    OPTIONS /v1/realtime/calls             → 200, Accept-Post
    OPTIONS /v1/realtime/calls/{id}        → 200, Accept-Post, Accept-Patch
    POST   /v1/realtime/calls/{id}         further offer (application/sdp) → 200, answer
    POST   /v1/realtime/calls/{id}/hangup  → 200
    PATCH  /v1/realtime/calls/{id}         ICE fragment → 204, or 200 with ours when it restarts
    DELETE /v1/realtime/calls/{id}         → 200
    GET    /v1/realtime                    a WebSocket (realtime.py)
    GET    /v1/info                        → what this transceiver is
    GET    /                               the page, if there is one

It reads requests and writes responses; who may ask, `Access` decides, and whether a call may be, `Calls`. The first two need
credentials. A call's own place needs none: its id cannot be guessed, and a browser's secret has often expired by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Scope

from protocol.sdp import FRAGMENT_TYPE
from transceiver.signalling.auth import Access
from transceiver.signalling.body import ACCEPT_POST, SDP_TYPE, read_call_request, read_fragment, read_further_offer
from transceiver.signalling.call_query import complete_request
from transceiver.signalling.calls import Calls
from transceiver.signalling.errors import SignallingError, error_response
from transceiver.signalling.origins import Origins
from transceiver.signalling.realtime import RealtimeSockets, Sockets, upgrade_required
from transceiver.signalling.secret_route import create_client_secret
from transceiver.signalling.unserved import unserved_routes

__all__ = ["create_app"]

# Specification constants
VERSION_PATH = "/v1"
CALLS_PATH = "/realtime/calls"
SECRETS_PATH = "/realtime/client_secrets"
SOCKET_PATH = "/realtime"

# Implementation constants
PREFLIGHT_SECONDS = 600


class _Cors(CORSMiddleware):
    """Tells browsers who ask before they post what they may post, too (RFC 9725 §4.2: in the answer to any OPTIONS)."""

    def __init__(self, app: ASGIApp, /, origins: Origins, **options: Any) -> None:  # noqa: ANN401 - Starlette's own
        super().__init__(app, **options)
        self._origins = origins

    def is_allowed_origin(self, origin: str) -> bool:
        return self._origins.allows(origin)

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        response.headers["Accept-Post"] = ACCEPT_POST
        return response


class _Page(StaticFiles):
    """The page's files, revalidated on each load: they belong to the process that serves them."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def create_app(
    calls: Calls,
    *,
    request_seconds: float,
    access: Access | None = None,
    origins: Origins | None = None,
    web: Path | None = None,
    inner: Sequence[Middleware] = (),
    sockets: Sockets | None = None,
) -> Starlette:
    """The application; without `access` it is open, `web` is the folder of the page, None for none. What `inner` answers gets
    the headers of CORS, too. `sockets` serves sessions by WebSocket. `origins` may read answers (all, if None); who may ask,
    `Guard` says."""
    access = access or Access()
    realtime = RealtimeSockets(calls, access, sockets)
    origins = origins or Origins()

    async def create_secret(request: Request) -> Response:
        return await create_client_secret(access, request, request_seconds)

    async def create(request: Request) -> Response:
        permit = access.identify(request.headers)
        asked = await read_call_request(request, request_seconds)
        created = calls.create(complete_request(asked, permit, request.query_params))
        headers = {
            "Location": f"{VERSION_PATH}{CALLS_PATH}/{created.call_id}",
            "ETag": created.etag,
            "Accept-Patch": FRAGMENT_TYPE,
            "Cache-Control": "no-store",
        }
        return Response(created.answer, 201, headers, SDP_TYPE)

    async def options(_: Request) -> Response:
        return Response(status_code=200, headers={"Allow": "OPTIONS, POST", "Accept-Post": ACCEPT_POST})

    async def options_of_call(_: Request) -> Response:
        headers = {"Allow": "DELETE, OPTIONS, PATCH, POST", "Accept-Post": SDP_TYPE, "Accept-Patch": FRAGMENT_TYPE}
        return Response(status_code=200, headers=headers)

    async def renegotiate(request: Request) -> Response:
        offer = await read_further_offer(request, request_seconds)
        answered = calls.renegotiate(request.path_params["call_id"], offer, request.headers.get("if-match"))
        if answered is None:
            raise _no_such_call()
        return Response(answered.body, 200, {"ETag": answered.etag, "Cache-Control": "no-store"}, SDP_TYPE)

    async def update_ice(request: Request) -> Response:
        fragment = await read_fragment(request, request_seconds)
        restarted = calls.update_ice(request.path_params["call_id"], request.headers.get("if-match"), fragment)
        if restarted is None:
            return Response(status_code=204)
        headers = {"ETag": restarted.etag, "Cache-Control": "no-store"}
        return Response(restarted.body, 200, headers, FRAGMENT_TYPE)

    async def hang_up(request: Request) -> Response:
        if not calls.hang_up(request.path_params["call_id"]):
            raise _no_such_call()
        return Response(status_code=200)

    async def info(_: Request) -> Response:
        told = calls.info() | {"needs_key": access.keys is not None}
        return JSONResponse(told, headers={"Cache-Control": "no-store"})

    api = [
        Route(SECRETS_PATH, create_secret, methods=["POST"]),
        Route(CALLS_PATH, create, methods=["POST"]),
        Route(CALLS_PATH, options, methods=["OPTIONS"]),
        Route(CALLS_PATH + "/{call_id}/hangup", hang_up, methods=["POST"]),
        Route(CALLS_PATH + "/{call_id}", options_of_call, methods=["OPTIONS"]),
        Route(CALLS_PATH + "/{call_id}", renegotiate, methods=["POST"]),
        Route(CALLS_PATH + "/{call_id}", update_ice, methods=["PATCH"]),
        Route(CALLS_PATH + "/{call_id}", hang_up, methods=["DELETE"]),
        Route(SOCKET_PATH, upgrade_required, methods=["GET"]),
        Route("/info", info),
        *unserved_routes(),
    ]

    async def on_http_exception(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        response = error_response(SignallingError(error.status_code, _code(error), str(error.detail)))
        response.headers.update(error.headers or {})
        if error.status_code == 405:
            path = request.url.path.removeprefix(VERSION_PATH)
            # RFC 9110 §15.5.6: all that the place takes; Starlette names the methods of its first route alone.
            response.headers["Allow"] = ", ".join(
                sorted({method for route in api if route.path_regex.match(path) for method in route.methods or ()})
                or ["GET", "HEAD"]  # the page
            )
        return response

    routes: list[BaseRoute] = [Mount(VERSION_PATH, routes=[*api, WebSocketRoute(SOCKET_PATH, realtime.serve)])]
    if web is not None:
        routes.append(Mount("/", _Page(directory=web, html=True)))
    cors = Middleware(
        _Cors,
        origins=origins,
        allow_origins=["*"] if origins.allows_all else [],
        allow_methods=["GET", "POST", "PATCH", "DELETE", "OPTIONS"],
        allow_headers=["*"],  # Authorization, Content-Type and whatever else an SDK adds
        expose_headers=[
            "Location",
            "ETag",
            "Accept-Patch",
            "Retry-After",
        ],  # a browser's SDK reads the call id from Location
        max_age=PREFLIGHT_SECONDS,
    )
    return Starlette(
        routes=routes,
        middleware=[cors, *inner],
        exception_handlers={
            SignallingError: _on_signalling_error,
            HTTPException: on_http_exception,
            Exception: _on_exception,
        },
    )


def _no_such_call() -> SignallingError:
    return SignallingError(404, "call_not_found", "There is no such call.", param="call_id")


async def _on_signalling_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, SignallingError)
    return error_response(error)


async def _on_exception(_: Request, __: Exception) -> Response:
    return error_response(SignallingError(500, "internal_error", "Something failed on our side."))


def _code(error: HTTPException) -> str:
    return str(error.detail).lower().replace(" ", "_") if error.status_code < 500 else "internal_error"

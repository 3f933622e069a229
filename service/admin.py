"""The admin port of a process: `GET /healthz` (alive), `/readyz` (takes new work), `/metrics` (Prometheus text).

It is for operators and probes and is bound to loopback unless configured otherwise; it shares nothing with the public ports.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import trio
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.http import serve_http

__all__ = ["MetricsSource", "create_admin_app", "serve_admin"]

MetricsSource = Callable[[], Iterable[Metric]]
"""Called at each scrape: builds metric families from plain integers, so that the packet paths never touch a metric."""


class _Scrape(Collector):
    def __init__(self, source: MetricsSource) -> None:
        self._source = source

    def collect(self) -> Iterable[Metric]:
        return self._source()


async def serve_admin(
    bind: str,
    *,
    metrics: MetricsSource,
    ready: Callable[[], bool],
    status: Callable[[], dict[str, object]] = dict,
    refresh: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the admin port until cancelled; `task_status` gets its bound URLs.

    `refresh` is awaited before `metrics` and `status` are asked, for those who must ask other processes first.
    """
    app = create_admin_app(metrics=metrics, ready=ready, status=status, refresh=refresh)
    await serve_http(app, [bind], task_status=task_status)


def create_admin_app(
    *,
    metrics: MetricsSource,
    ready: Callable[[], bool],
    status: Callable[[], dict[str, object]] = dict,
    refresh: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint,
) -> Starlette:
    """What `serve_admin` serves, for those who serve it themselves."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Scrape(metrics))

    async def healthz(_: Request) -> Response:
        await refresh()
        return JSONResponse({"status": "ok", **status()})

    async def readyz(_: Request) -> Response:
        is_ready = ready()
        return JSONResponse({"ready": is_ready}, status_code=200 if is_ready else 503)

    async def scrape(_: Request) -> Response:
        await refresh()
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", scrape)])

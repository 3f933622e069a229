"""Serving an ASGI application by hypercorn inside our own nursery, with the limits every port of ours needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio import serve

__all__ = ["serve_http"]

# Implementation constants
KEEP_ALIVE_SECONDS = 10.0
READ_SECONDS = 10.0  # a slow sender is cut: headers and body each within this
GRACE_SECONDS = 2.0


async def serve_http(
    app: Callable[..., Any],
    binds: list[str],
    *,
    shutdown: Callable[[], Awaitable[None]] | None = None,
    max_header_bytes: int = 16 * 1024,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` on `binds` ("127.0.0.1:8080", "[::1]:0"); `task_status` gets the bound URLs. Raises OSError if taken.

    Without `shutdown` it serves until cancelled; with it, until that returns, then open requests get GRACE_SECONDS.
    """
    config = Config()
    config.bind = binds
    config.accesslog = None
    config.errorlog = None
    config.include_server_header = False
    config.keep_alive_timeout = KEEP_ALIVE_SECONDS
    config.read_timeout = READ_SECONDS  # type: ignore[assignment]
    config.graceful_timeout = GRACE_SECONDS
    config.h11_max_incomplete_size = max_header_bytes
    await serve(app, config, shutdown_trigger=shutdown or trio.sleep_forever, task_status=task_status)

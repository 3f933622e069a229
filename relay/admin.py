"""The relay's admin port. Imported only when packets already flow: HTTP costs a third of a second of imports."""

from __future__ import annotations

from collections.abc import Mapping

import trio

from relay.core import RelayCore
from relay.metrics import collect
from service.admin import serve_admin
from udpio import UdpCounters

__all__ = ["admin_port"]


async def admin_port(
    bind: str,
    core: RelayCore,
    counters: Mapping[str, UdpCounters],
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    await serve_admin(
        bind,
        metrics=lambda: collect(core, counters),
        ready=lambda: True,
        status=lambda: {"flows": core.flows.established},
        task_status=task_status,
    )

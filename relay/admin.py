"""The relay's admin port, in the supervisor. Imported when packets already flow: HTTP costs a third of a second of imports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import trio
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from relay.ledger import Family
from relay.supervisor import Supervisor
from service.admin import serve_admin

__all__ = ["admin_port", "to_prometheus"]


async def admin_port(
    bind: str, relay: Supervisor, task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED
) -> None:
    await serve_admin(
        bind,
        metrics=lambda: to_prometheus(relay.families()),
        ready=lambda: True,
        status=relay.status,
        refresh=relay.refresh,
        task_status=task_status,
    )


def to_prometheus(families: Sequence[Family]) -> Iterable[Metric]:
    for family in families:
        kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
        metric = kind(family.name, family.help, labels=family.labels)
        for labels, value in family.samples:
            metric.add_metric(labels, value)
        yield metric

"""The admin port, over real HTTP on loopback."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
import trio
from prometheus_client.core import CounterMetricFamily

from service.addresses import own_addresses, parse_host_port, to_host_port
from service.admin import MetricsSource, serve_admin


async def test_health_readiness_and_metrics_are_served_and_follow_the_process():
    dropped = 3
    ready = False

    def metrics():
        family = CounterMetricFamily("antiphon_relay_dropped", "Datagrams dropped", labels=["reason"])
        family.add_metric(["no_flow"], dropped)
        yield family

    async with trio.open_nursery() as nursery:
        urls = await nursery.start(lambda task_status: _serve(metrics, lambda: ready, task_status))
        async with httpx.AsyncClient(base_url=urls[0]) as client:
            assert (await client.get("/healthz")).json() == {"status": "ok", "flows": 2}
            assert (await client.get("/readyz")).status_code == 503
            ready = True
            assert (await client.get("/readyz")).status_code == 200
            dropped = 4
            assert 'antiphon_relay_dropped_total{reason="no_flow"} 4.0' in (await client.get("/metrics")).text
        nursery.cancel_scope.cancel()


async def _serve(metrics: MetricsSource, ready: Callable[[], bool], task_status: trio.TaskStatus[list[str]]):
    await serve_admin("127.0.0.1:0", metrics=metrics, ready=ready, status=lambda: {"flows": 2}, task_status=task_status)


@pytest.mark.parametrize("text", ["127.0.0.1:3478", "[::1]:0", "[2001:db8::1]:65535"])
def test_socket_addresses_are_read_and_written_back(text: str):
    assert to_host_port(*parse_host_port(text)) == text


@pytest.mark.parametrize(
    "text", ["", "127.0.0.1", "::1:80", "localhost:80", "1.2.3.4:65536", "[1.2.3.4]:1", "1.2.3.4:x"]
)
def test_what_is_not_a_socket_address_is_refused_with_a_sentence(text: str):
    with pytest.raises(ValueError, match=r"127\.0\.0\.1:3478|no port"):
        parse_host_port(text)


def test_this_machine_has_a_loopback_address_and_it_comes_last():
    found = own_addresses()
    assert "127.0.0.1" in found
    assert not found[0].startswith("fe80")

"""What the relay tells Prometheus: families built from plain integers at each scrape; the packet path knows no metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from relay.core import RelayCore
from udpio import UdpCounters

__all__ = ["collect"]


def collect(core: RelayCore, sockets: Mapping[str, UdpCounters]) -> Iterable[Metric]:
    """`sockets`: name (`listen 127.0.0.1:3478`, `trunk`) → its counters."""
    flows = GaugeMetricFamily("antiphon_relay_flows", "Flows in the table", labels=["state"])
    flows.add_metric(["established"], core.flows.established)
    flows.add_metric(["probationary"], core.flows.probationary)
    yield flows

    events = CounterMetricFamily("antiphon_relay_flow_events", "What happened to flows", labels=["event"])
    for event, value in (
        ("opened", core.opened),
        ("established", core.established),
        ("moved", core.moved),
        ("learned", core.learned),
        ("expired", core.flows.expired),
        ("lapsed", core.flows.lapsed),
        ("evicted", core.flows.evicted),
    ):
        events.add_metric([event], value)
    yield events

    frames = CounterMetricFamily("antiphon_relay_frames", "Client datagrams forwarded", labels=["direction"])
    frames.add_metric(["up"], core.frames_up)
    frames.add_metric(["down"], core.frames_down)
    yield frames

    drops = CounterMetricFamily("antiphon_relay_drops", "Datagrams and frames dropped, by reason", labels=["reason"])
    for reason, value in core.drops.items():
        drops.add_metric([reason], value)
    yield drops

    datagrams = CounterMetricFamily(
        "antiphon_relay_socket_datagrams", "Datagrams through a socket", labels=["socket", "direction"]
    )
    volume = CounterMetricFamily(
        "antiphon_relay_socket_bytes", "Bytes through a socket", labels=["socket", "direction"]
    )
    truncated = CounterMetricFamily(
        "antiphon_relay_socket_truncated", "Datagrams too long for a receive slot, dropped", labels=["socket"]
    )
    errors = CounterMetricFamily(
        "antiphon_relay_socket_errors", "What the kernel refused", labels=["socket", "direction", "errno"]
    )
    for name, counters in sockets.items():
        datagrams.add_metric([name, "in"], counters.datagrams_received)
        datagrams.add_metric([name, "out"], counters.datagrams_sent)
        volume.add_metric([name, "in"], counters.bytes_received)
        volume.add_metric([name, "out"], counters.bytes_sent)
        truncated.add_metric([name], counters.truncated)
        for direction, counted in (("in", counters.receive_errors), ("out", counters.send_errors)):
            for errno_name, value in counted.items():
                errors.add_metric([name, direction, errno_name], value)
    yield from (datagrams, volume, truncated, errors)

"""What `/metrics` says: families built from plain integers when they are asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from transceiver.backends.pool import AgentPool
from transceiver.engine import Engine
from transceiver.registry import Registry
from transceiver.signalling import Access, ConnectionDoor
from transceiver.sockets import SocketSessions
from udpio import UdpCounters

__all__ = ["collect"]

PREFIX = "antiphon_transceiver_"


def collect(
    registry: Registry,
    engine: Engine,
    agents: AgentPool,
    udp: UdpCounters,
    door: ConnectionDoor,
    access: Access,
    sockets: SocketSessions,
) -> Iterator[Metric]:
    yield from _calls(registry)
    yield _counter("turns", "Turns of the media loop.", engine.turns)
    yield _counter("trunk_frames_sent", "Frames sent through relays.", engine.outbox.frames_sent)
    drops = engine.drops + registry.all_drops()
    drops["trunk_refused"] = engine.outbox.frames_refused
    waited = drops.pop("data_waited", 0)
    yield _counter("data_waited", "Data messages of callers that waited for their share, or for the agent.", waited)
    yield _by("dropped", "Datagrams and frames that were dropped.", "reason", drops)
    yield _by("repair", "Audio lost, asked for, made good; feedback; of calls that ended.", "kind", registry.repairs)
    for way in ("received", "sent"):
        yield _counter(f"datagrams_{way}", f"UDP datagrams {way}.", getattr(udp, f"datagrams_{way}"))
        yield _counter(f"bytes_{way}", f"UDP bytes {way}.", getattr(udp, f"bytes_{way}"))
    yield _counter("datagrams_truncated", "UDP datagrams longer than a receive buffer.", udp.truncated)
    yield _counter("datagrams_overflowed", "UDP datagrams that the kernel dropped before we read them.", udp.overflowed)
    yield _by("send_errors", "Datagrams the kernel refused.", "errno", udp.send_errors)
    yield _by("receive_errors", "Receive calls that failed.", "errno", udp.receive_errors)
    yield _gauge("http_connections", "Open HTTP connections.", door.total)
    yield _counter("http_connections_refused", "HTTP connections beyond the limits.", door.refused)
    yield _counter("http_connections_failed", "HTTP connections that ended by an exception.", door.faults.count)
    yield _by("credentials_refused", "Requests without good credentials.", "code", access.refused)
    yield _by("key_calls", "Calls now, by API key.", "key", access.usage.calls, GaugeMetricFamily)
    yield _gauge("websocket_sessions", "Sessions by WebSocket now.", registry.sockets)
    yield _counter("websocket_sessions_started", "Sessions by WebSocket that an agent took.", sockets.started)
    yield _by("websocket_sessions_ended", "Sessions by WebSocket that ended.", "reason", sockets.ended)
    yield from _links(agents)


def _calls(registry: Registry) -> Iterable[Metric]:
    lives: Counter[str] = Counter(session.life.name.lower() for session in registry.sessions.values())
    yield _by("calls", "Calls now, by state.", "state", lives, GaugeMetricFamily)
    controllers = sum(len(session.conversation.controllers or ()) for session in registry.sessions.values())
    yield _gauge("controllers", "Controllers attached to calls now.", controllers)
    yield _gauge("half_open_calls", "Calls that no authenticated check has reached.", len(registry.half_open))
    yield _gauge("draining", "1 while the process takes no new calls.", int(registry.draining))
    yield _counter("calls_created", "Offers that were answered.", registry.created)
    yield _by("calls_ended", "Calls that ended.", "reason", registry.ended)
    yield _by("offers_refused", "Offers that were refused.", "code", registry.refused)


def _links(agents: AgentPool) -> Iterable[Metric]:
    up = GaugeMetricFamily(PREFIX + "agent_link_up", "Whether the link to an agent is up.", labels=["agent"])
    calls = GaugeMetricFamily(PREFIX + "agent_link_calls", "Calls on the link.", labels=["agent"])
    connects = CounterMetricFamily(PREFIX + "agent_link_connects", "How often the link came up.", labels=["agent"])
    drops: Counter[str] = Counter()
    for link in agents.links:
        up.add_metric([link.url], int(link.connected))
        calls.add_metric([link.url], link.calls)
        connects.add_metric([link.url], link.connects)
        drops += link.drops
    yield from (up, calls, connects, _by("agent_link_dropped", "Messages dropped.", "reason", drops))


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(PREFIX + name, text, value=value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, text, value=value)


def _by(
    name: str,
    text: str,
    label: str,
    values: Mapping[str, int],
    kind: type[CounterMetricFamily] | type[GaugeMetricFamily] = CounterMetricFamily,
) -> Metric:
    family = kind(PREFIX + name, text, labels=[label])
    for value, count in sorted(values.items()):
        family.add_metric([value], count)
    return family

"""What the relay tells Prometheus. A worker makes families from plain integers when asked; the packet path knows no metric.

The families travel with names and help, so a supervisor can show what a later generation of workers counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from relay.core import RelayCore
from relay.ledger import Family
from udpio import UdpCounters

__all__ = ["OVERFLOWED", "collect"]

_PREFIX = "antiphon_relay_"
_OVERFLOWED = "socket_overflowed"
OVERFLOWED = _PREFIX + _OVERFLOWED


def collect(core: RelayCore, sockets: Mapping[str, UdpCounters]) -> list[Family]:
    """`sockets`: name (`listen 127.0.0.1:3478`, `trunk`) → its counters."""
    events = (
        ("opened", core.opened),
        ("established", core.established),
        ("moved", core.moved),
        ("learned", core.learned),
        ("expired", core.flows.expired),
        ("lapsed", core.flows.lapsed),
        ("evicted", core.flows.evicted),
    )
    flows = (("established", core.flows.established), ("probationary", core.flows.probationary))
    datagrams: list[tuple[tuple[str, ...], float]] = []
    volume: list[tuple[tuple[str, ...], float]] = []
    truncated: list[tuple[tuple[str, ...], float]] = []
    overflowed: list[tuple[tuple[str, ...], float]] = []
    errors: list[tuple[tuple[str, ...], float]] = []
    for name, counters in sockets.items():
        datagrams += [((name, "in"), counters.datagrams_received), ((name, "out"), counters.datagrams_sent)]
        volume += [((name, "in"), counters.bytes_received), ((name, "out"), counters.bytes_sent)]
        truncated.append(((name,), counters.truncated))
        overflowed.append(((name,), counters.overflowed))
        for direction, counted in (("in", counters.receive_errors), ("out", counters.send_errors)):
            errors += [((name, direction, errno_name), value) for errno_name, value in counted.items()]
    directed = ("socket", "direction")
    return [
        Family("antiphon_relay_flows", "Flows in the table", "gauge", ("state",), _one_label(flows)),
        _counter("flow_events", "What happened to flows", ("event",), _one_label(events)),
        _counter(
            "frames",
            "Client datagrams forwarded",
            ("direction",),
            _one_label((("up", core.frames_up), ("down", core.frames_down))),
        ),
        _counter("drops", "Datagrams and frames dropped, by reason", ("reason",), _one_label(core.drops.items())),
        _counter(
            "not_learned",
            "Reply frames that were delivered and neither opened nor moved a flow, by reason",
            ("reason",),
            _one_label(core.not_learned.items()),
        ),
        _counter("socket_datagrams", "Datagrams through a socket", directed, datagrams),
        _counter("socket_bytes", "Bytes through a socket", directed, volume),
        _counter("socket_truncated", "Datagrams too long for a receive slot, dropped", ("socket",), truncated),
        _counter(_OVERFLOWED, "Datagrams that the kernel dropped before we read them", ("socket",), overflowed),
        _counter("socket_errors", "What the kernel refused", (*directed, "errno"), errors),
    ]


def _counter(name: str, text: str, labels: tuple[str, ...], samples: list[tuple[tuple[str, ...], float]]) -> Family:
    return Family(_PREFIX + name, text, "counter", labels, samples)


def _one_label(samples: Iterable[tuple[str, float]]) -> list[tuple[tuple[str, ...], float]]:
    return [((label,), value) for label, value in samples]

"""What bridges count, of all calls of this process together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

__all__ = ["UpstreamStatistics"]


class UpstreamStatistics:
    """Counted in place by whoever sees it happen. The reasons are words of ours: there are few."""

    def __init__(self) -> None:
        self.open = 0
        self.connects = 0
        self.losses: Counter[str] = Counter()
        self.restored_items = 0
        self.events_up = 0
        self.events_down = 0
        self.appends = 0
        self.interruptions = 0
        self.sound_waits = 0
        self.uplink_dropped_ms = 0.0
        self.drops: Counter[str] = Counter()

    def metrics(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(
            "antiphon_agent_upstream_open", "Connections to the service, also those being made.", self.open
        )
        for name, text, value in (
            ("connects", "Sessions that the service began.", self.connects),
            ("restored_items", "Conversation items told again to a new session.", self.restored_items),
            ("events_up", "Events sent to the service, audio aside.", self.events_up),
            ("events_down", "Events of the service that went to clients.", self.events_down),
            ("appends", "Pieces of callers' audio sent to the service.", self.appends),
            ("interruptions", "Times that a caller or client silenced the service.", self.interruptions),
            ("sound_waits", "Times that the service had to wait as its sound is heard too slowly.", self.sound_waits),
            ("uplink_dropped_ms", "Callers' audio that the service took too slowly.", self.uplink_dropped_ms),
        ):
            yield CounterMetricFamily(f"antiphon_agent_upstream_{name}", text, value)
        for name, text, counts in (
            ("losses", "Connections to the service that failed or broke, by reason.", self.losses),
            ("drops", "What did not pass the bridge, by reason.", self.drops),
        ):
            family = CounterMetricFamily(f"antiphon_agent_upstream_{name}", text, labels=["reason"])
            for reason, count in sorted(counts.items()):
                family.add_metric([reason], count)
            yield family

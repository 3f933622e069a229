"""The numbers of this process: plain integers, made into Prometheus metrics only when somebody asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

__all__ = ["Statistics"]

MAX_REASONS = 64  # label values come from the peer of the link: bounded, then `other`


class Statistics:
    """Counted in place by whoever sees it happen."""

    def __init__(self) -> None:
        self.links = 0
        self.calls = 0
        self.calls_started = 0
        self.calls_ended: Counter[str] = Counter()
        self.frames_received = 0
        self.frames_sent = 0
        self.frames_dropped = 0
        self.messages_received = 0
        self.messages_sent = 0
        self.messages_unread = 0
        self.flushes = 0
        self.drops: Counter[str] = Counter()

    def count_end(self, reason: str) -> None:
        known = reason in self.calls_ended or len(self.calls_ended) < MAX_REASONS
        self.calls_ended[reason if known else "other"] += 1

    def metrics(self) -> Iterable[Metric]:
        yield GaugeMetricFamily("antiphon_agent_links", "Open links to transceivers.", self.links)
        yield GaugeMetricFamily("antiphon_agent_calls", "Calls in progress.", self.calls)
        for name, text, value in (
            ("calls_started", "Calls accepted.", self.calls_started),
            ("frames_received", "Audio frames that arrived.", self.frames_received),
            ("frames_sent", "Audio frames that agents sent.", self.frames_sent),
            ("frames_dropped", "Audio frames dropped because an agent was too slow.", self.frames_dropped),
            ("messages_received", "Data messages that arrived.", self.messages_received),
            ("messages_sent", "Data messages that agents sent.", self.messages_sent),
            ("messages_unread", "Data messages dropped because an agent reads none.", self.messages_unread),
            ("flushes", "Times that queued audio was thrown away (barge-in).", self.flushes),
        ):
            yield CounterMetricFamily(f"antiphon_agent_{name}", text, value)
        yield _by_reason("antiphon_agent_calls_ended", "Calls that ended, by reason.", self.calls_ended)
        yield _by_reason("antiphon_agent_link_drops", "Link messages ignored, by reason.", self.drops)


def _by_reason(name: str, text: str, counts: Counter[str]) -> Metric:
    family = CounterMetricFamily(name, text, labels=["reason"])
    for reason, count in sorted(counts.items()):
        family.add_metric([reason], count)
    return family

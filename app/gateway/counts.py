"""What the gateway counts, as plain numbers; prometheus_client only words them when somebody asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class Counts:
    """Counters since the start."""

    __slots__ = ("batches", "closes", "events", "messages", "page_frames", "reports", "write_retries", "write_s")

    def __init__(self) -> None:
        self.messages = 0
        self.reports = 0
        self.events = 0
        self.batches = 0
        self.write_s = 0.0
        self.write_retries = 0
        self.page_frames = 0
        self.closes: Counter[str] = Counter()


Gauges = Callable[[], dict[str, float]]
"""Name (without prefix) -> value now."""

_GAUGE_TEXTS = {
    "nodes": "Nodes connected to this gateway.",
    "held": "Connections held in identity conflicts.",
    "opening": "Connections that have not proved themselves yet.",
    "pages": "Browser pages connected.",
    "unwritten_nodes": "Nodes with state that is not stored yet.",
    "ready": "1 when the database answers.",
}


class _GatewayCollector(Collector):
    def __init__(self, counts: Counts, gauges: Gauges) -> None:
        self._counts = counts
        self._gauges = gauges

    def collect(self) -> Iterable[Metric]:
        counts = self._counts
        for name, text, value in (
            ("messages", "Messages from nodes.", counts.messages),
            ("reports", "Coalesced reports of nodes stored.", counts.reports),
            ("happenings", "Events, reports and lease messages stored.", counts.events),
            ("batches", "Write transactions of node state.", counts.batches),
            ("write_seconds", "Seconds spent in them.", counts.write_s),
            ("page_frames", "Frames sent to browser pages.", counts.page_frames),
        ):
            yield CounterMetricFamily(f"twinroot_gateway_{name}", text, value=value)
        closes = CounterMetricFamily("twinroot_gateway_closes", "Connections that we closed.", labels=["code"])
        for code, count in counts.closes.items():
            closes.add_metric([code], count)
        yield closes
        for name, value in self._gauges().items():
            yield GaugeMetricFamily(f"twinroot_gateway_{name}", _GAUGE_TEXTS[name], value=value)


def exposition(counts: Counts, gauges: Gauges) -> bytes:
    """The text that Prometheus scrapes."""
    registry = CollectorRegistry()
    registry.register(_GatewayCollector(counts, gauges))
    return generate_latest(registry)

"""Prometheus figures of the web process; one registry an app, so that tests and processes do not share them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

_BUCKETS_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""From a fragment out of the cache to a page somebody waits for."""


class WebMetrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "twinroot_web_requests", "Requests answered", ["endpoint", "method", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "twinroot_web_request_seconds", "Time to answer", ["endpoint"], buckets=_BUCKETS_S, registry=self.registry
        )
        self.fragments = Counter(
            "twinroot_web_fragments",
            "Live fragments: rendered, taken from the cache, or unchanged (304)",
            ["outcome"],
            registry=self.registry,
        )

    def text(self) -> bytes:
        return bytes(generate_latest(self.registry))

"""What is so at the moment of a scrape: read from the service, not counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from ai_client import __version__
from ai_client.gateway.spending import Spent
from ai_client.metrics import Recorder


@dataclass(frozen=True, slots=True)
class Moment:
    """The service's state now. `certificate_expires_at_s` is wall-clock time; None where it is not known."""

    connections: int
    requests_in_flight: int
    #: What `AIAPIClient.get_stats` tells.
    client: Mapping[str, Any]
    certificate_expires_at_s: float | None
    #: Requests that a fault of the service's own ended.
    faults: int = 0


class MomentCollector:
    """A `prometheus_client` collector. Who scrapes puts a new moment in first: the client is not to be asked from
    another thread."""

    def __init__(self, moment: Moment) -> None:
        self.moment = moment
        self.spent = Spent()

    def collect(self) -> Iterator[Metric]:
        """Called at each scrape."""
        moment = self.moment
        pool = moment.client["pool"]
        budgets = GaugeMetricFamily(
            "ai_client_budget_used_ratio", "Share of a budget that is spent.", labels=("scope", "period")
        )
        for budget in self.spent.budgets:
            budgets.add_metric((budget.scope, budget.period), budget.used_ratio)
        yield budgets
        info = GaugeMetricFamily("ai_client_build_info", "Always 1; the labels tell.", labels=("version",))
        info.add_metric((__version__,), 1)
        yield info
        yield CounterMetricFamily(
            "ai_client_gateway_faults",
            "Requests that a fault of the service's own ended.",
            value=moment.faults,
        )
        values = (
            ("ai_client_gateway_connections", "Open connections of callers.", moment.connections),
            ("ai_client_gateway_requests_in_flight", "Requests being answered.", moment.requests_in_flight),
            ("ai_client_queue_length", "Requests that wait for admission.", moment.client["queued"]),
            ("ai_client_pool_connections_in_use", "Upstream connections in use.", pool["in_use"]),
            ("ai_client_pool_connections_limit", "Upstream connections at most.", pool["size"]),
            (
                "ai_client_upstream_certificate_expiry_timestamp_seconds",
                "When the upstream's certificate expires, in seconds since the epoch.",
                moment.certificate_expires_at_s,
            ),
        )
        for name, text, value in values:
            if value is not None:
                yield GaugeMetricFamily(name, text, value=value)


def registry_of(recorder: Recorder, moments: MomentCollector) -> CollectorRegistry:
    """All metrics of a service: its own, and those of its process."""
    registry = CollectorRegistry()
    registry.register(recorder)
    registry.register(moments)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry

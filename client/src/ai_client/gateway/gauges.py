"""What is so at the moment of a scrape: read from the service, not counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from ai_client import __version__
from ai_client.metrics import Recorder


@dataclass(frozen=True, slots=True)
class Moment:
    """The service's state now. `certificate_expires_at_s` is wall-clock time; None where it is not known."""

    connections: int
    requests_in_flight: int
    queued: int
    pool_in_use: int
    pool_size: int
    certificate_expires_at_s: float | None


class MomentCollector:
    """A `prometheus_client` collector over a function that looks."""

    def __init__(self, look: Callable[[], Moment]) -> None:
        self._look = look

    def collect(self) -> Iterator[Metric]:
        """Called at each scrape."""
        moment = self._look()
        info = GaugeMetricFamily("ai_client_build_info", "Always 1; the labels tell.", labels=("version",))
        info.add_metric((__version__,), 1)
        yield info
        values = (
            ("ai_client_gateway_connections", "Open connections of callers.", moment.connections),
            ("ai_client_gateway_requests_in_flight", "Requests being answered.", moment.requests_in_flight),
            ("ai_client_queue_length", "Requests that wait for admission.", moment.queued),
            ("ai_client_pool_connections_in_use", "Upstream connections in use.", moment.pool_in_use),
            ("ai_client_pool_connections_limit", "Upstream connections at most.", moment.pool_size),
            (
                "ai_client_upstream_certificate_expiry_timestamp_seconds",
                "When the upstream's certificate expires, in seconds since the epoch.",
                moment.certificate_expires_at_s,
            ),
        )
        for name, text, value in values:
            if value is not None:
                yield GaugeMetricFamily(name, text, value=value)


def registry_of(recorder: Recorder, look: Callable[[], Moment]) -> CollectorRegistry:
    """All metrics of a service: its own, and those of its process."""
    registry = CollectorRegistry()
    registry.register(recorder)
    registry.register(MomentCollector(look))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry

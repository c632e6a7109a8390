"""What is so at the moment of a scrape: read from the service, not counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from ai_client import __version__
from ai_client.coordination.batch_protocol import STAGES
from ai_client.gateway.watch.batches import BatchProgress
from ai_client.gateway.watch.spending import Spent
from ai_client.ledger.prices import NANO_PER_DOLLAR
from ai_client.metrics import Recorder

if TYPE_CHECKING:
    from ai_client.configure.shared_budgets import SharedBudget
    from ai_client.coordination.status import Status


@dataclass(frozen=True, slots=True)
class ServiceState:
    """The service's state now. `certificate_expires_at_s` is wall-clock time; None where it is not known."""

    connections: int
    requests_in_flight: int
    #: What `AIAPIClient.get_stats` tells.
    client: Mapping[str, Any]
    certificate_expires_at_s: float | None
    #: Requests that a fault of the service's own ended.
    faults: int = 0
    #: Connections and bodies that there was no room for.
    refused_connections: int = 0
    refused_bodies: int = 0
    #: Processes that had handed over to this one and stood.
    ended_predecessors: int = 0
    #: None where no quota is coordinated.
    quota: Status | None = None
    #: Budgets that hosts share; none where they don't.
    shared_budgets: tuple[SharedBudget, ...] = ()


class StateCollector:
    """A `prometheus_client` collector. Who scrapes puts a new moment in first: the client is not to be asked from
    another thread."""

    def __init__(self, moment: ServiceState) -> None:
        self.moment = moment
        self.spent = Spent()
        #: None where they are not known.
        self.batches: tuple[BatchProgress, ...] | None = None

    def collect(self) -> Iterator[Metric]:
        """Called at each scrape."""
        moment = self.moment
        pool = moment.client["pool"]
        yield _budgets(self.spent)
        info = GaugeMetricFamily(
            "ai_client_build_info", "Always 1; the labels describe the build.", labels=("version",)
        )
        info.add_metric((__version__,), 1)
        yield info
        yield from _ended_here(moment)
        values = (
            ("ai_client_gateway_connections", "Open connections from callers.", moment.connections),
            ("ai_client_gateway_requests_in_flight", "Requests being answered.", moment.requests_in_flight),
            ("ai_client_queue_length", "Requests waiting for admission.", moment.client["queued"]),
            ("ai_client_pool_connections_in_use", "Connections to the upstream in use.", pool["in_use"]),
            ("ai_client_pool_connections_limit", "Most connections to the upstream.", pool["size"]),
            (
                "ai_client_upstream_certificate_expiry_timestamp_seconds",
                "When the upstream's certificate expires, in seconds since the epoch.",
                moment.certificate_expires_at_s,
            ),
        )
        for name, text, value in values:
            if value is not None:
                yield GaugeMetricFamily(name, text, value=value)
        yield from _limits(moment.client)
        if moment.quota is not None:
            yield from _quota(moment.quota)
        if moment.shared_budgets:
            yield from _shared_budgets(moment.shared_budgets)
        if self.batches is not None:
            yield from _shared_batches(self.batches)


def _budgets(spent: Spent) -> Metric:
    budgets = GaugeMetricFamily(
        "ai_client_budget_used_ratio",
        "Share of a budget that is spent, from 0 to 1.",
        labels=("scope", "period"),
    )
    for budget in spent.budgets:
        budgets.add_metric((budget.scope, budget.period), budget.used_ratio)
    return budgets


def _shared_budgets(budgets: tuple[SharedBudget, ...]) -> Iterator[Metric]:
    left = GaugeMetricFamily(
        "ai_client_budget_allowance_left_usd",
        "What this host was granted of a budget that hosts share, and has not used.",
        labels=("scope", "period"),
    )
    free = GaugeMetricFamily(
        "ai_client_budget_free_usd",
        "What no host was granted of a budget that hosts share.",
        labels=("scope", "period"),
    )
    for each in budgets:
        left.add_metric((each.scope, each.period), (each.held - each.used) / NANO_PER_DOLLAR)
        free.add_metric((each.scope, each.period), each.free / NANO_PER_DOLLAR)
    yield from (left, free)


def _shared_batches(batches: tuple[BatchProgress, ...]) -> Iterator[Metric]:
    """Every batch host says the same: they are not to be added up."""
    stages = GaugeMetricFamily(
        "ai_client_shared_batches",
        "Batches that hosts share and that are not fetched to their end, by how far they are.",
        labels=("stage",),
    )
    for stage in STAGES[:-1]:
        stages.add_metric((stage,), sum(each.stage == stage for each in batches))
    lines = GaugeMetricFamily(
        "ai_client_shared_batch_lines",
        "Lines of these batches: to be answered, answered (failed ones included), failed, and fetched.",
        labels=("state",),
    )
    waiting = sum(each.lines - each.done for each in batches if each.stage != "cancelled")
    lines.add_metric(("waiting",), waiting)
    for state in ("done", "failed", "fetched"):
        lines.add_metric((state,), sum(getattr(each, state) for each in batches))
    yield from (stages, lines)


def _ended_here(moment: ServiceState) -> Iterator[Metric]:
    """What the gateway itself failed or refused."""
    yield CounterMetricFamily(
        "ai_client_gateway_faults",
        "Requests that failed because of a fault in the service itself.",
        value=moment.faults,
    )
    refused = CounterMetricFamily(
        "ai_client_gateway_refused",
        "Connections and bodies refused because a limit was reached.",
        labels=("what",),
    )
    refused.add_metric(("connections",), moment.refused_connections)
    refused.add_metric(("bodies",), moment.refused_bodies)
    yield refused
    yield CounterMetricFamily(
        "ai_client_gateway_predecessors_ended",
        "Processes that had handed over, showed no sign of life, and were ended with their streams.",
        value=moment.ended_predecessors,
    )


def _limits(client: Mapping[str, Any]) -> Iterator[Metric]:
    """What this host may send in a minute, and what of it is used. A limit that is not set has no series."""
    limits = GaugeMetricFamily(
        "ai_client_limit", "Requests or tokens that this host may send in any minute.", labels=("kind",)
    )
    used = GaugeMetricFamily(
        "ai_client_limit_used",
        "Requests or tokens counted against the limit in the last minute.",
        labels=("kind",),
    )
    for kind in ("requests", "tokens"):
        limit = client[f"limit_{kind}"]
        if limit is not None:
            limits.add_metric((kind,), limit)
            used.add_metric((kind,), client[f"window_{kind}"])
    yield from (limits, used)


def _quota(status: Status) -> Iterator[Metric]:
    values = (
        ("ai_client_quota_limit", "Requests per minute that this host may send now.", status.limit),
        (
            "ai_client_quota_share",
            "Requests per minute that this host contributes: its own share.",
            status.share,
        ),
        ("ai_client_quota_free", "Requests per minute that are not lent to any host.", status.pool),
        ("ai_client_quota_fleet_limit", "Requests per minute for all hosts together.", status.slots),
        ("ai_client_quota_hosts", "Hosts that share the quota.", status.hosts),
        ("ai_client_quota_leased", "1 while this host has a valid lease, else 0.", status.mode == "leased"),
        (
            "ai_client_quota_recovering",
            "1 while the engine does not know yet what was lent, so that nothing new is lent, else 0.",
            status.is_recovering,
        ),
    )
    for name, text, value in values:
        yield GaugeMetricFamily(name, text, value=value)
    counts = (
        ("ai_client_quota_calls", "Calls to the coordination engine.", status.calls),
        (
            "ai_client_quota_failures",
            "Calls to the coordination engine without a valid answer.",
            status.failures,
        ),
        ("ai_client_quota_pauses_told", "Pauses that this host announced to the others.", status.pauses_told),
        ("ai_client_quota_pauses_heard", "Pauses that another host announced.", status.pauses_heard),
    )
    for name, text, value in counts:
        yield CounterMetricFamily(name, text, value=value)


def registry_of(recorder: Recorder, moments: StateCollector) -> CollectorRegistry:
    """All metrics of a service: its own, and those of its process."""
    registry = CollectorRegistry()
    registry.register(recorder)
    registry.register(moments)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry

"""From events to metrics. Names and buckets are OpenTelemetry's GenAI conventions where there is one.

https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/ (in development; as of 2026), written as Prometheus
writes them: dots become underscores, the unit a suffix. What has no convention begins with `ai_client_`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client.metrics_core import Metric

from ai_client.contract.events import (
    Admitted,
    BreakerChanged,
    BudgetAlert,
    CacheHit,
    CacheMissed,
    ConcurrencyChanged,
    Failed,
    FellBack,
    FirstByte,
    KeyRotated,
    Retried,
    Settled,
    StoreDegraded,
    Throttled,
)
from ai_client.metrics.families import Bounded, Cell, CounterFamily, GaugeFamily, HistogramFamily

DURATION_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKENS = tuple(float(4**power) for power in range(14))
FIRST_CHUNK_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
OVERHEAD_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
WAIT_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)

MOST_MODELS = 50
MOST_TENANTS = 100

_OPERATIONS = {"chat/completions": "chat", "completions": "text_completion", "embeddings": "embeddings"}
_BREAKER = {"closed": 0, "half-open": 1, "open": 2}
_OPERATION = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")


class _Series:
    """What answers of one kind are counted into: looked up once a request, not once a metric."""

    __slots__ = ("cost", "duration", "input_tokens", "output_tokens", "requests")

    def __init__(self, *, duration: Cell, requests: tuple[str, str, str], cost: tuple[str, str]) -> None:
        self.duration = duration
        self.requests = requests
        self.cost = cost
        #: Made at the first answer that tells its usage, so that no empty series is scraped.
        self.input_tokens: Cell | None = None
        self.output_tokens: Cell | None = None


class Recorder:
    """Listeners of events, and a `prometheus_client` collector.

    Cardinality is bounded: models and tenants beyond a number of them become `other`.
    """

    def __init__(self, *, provider: str, models: Iterable[str], tenants: Iterable[str]) -> None:
        self._provider = provider
        self._model = Bounded(models, limit=MOST_MODELS)
        self._tenant = Bounded(tenants, limit=MOST_TENANTS)
        self._series: dict[tuple[str, str, str, int], _Series] = {}
        self._make_operation_metrics()
        self._make_own_metrics()
        #: What counts each kind of event.
        self.listeners: dict[type[Any], Callable[[Any], None]] = {
            Settled: self._settled,
            Failed: self._failed,
            Admitted: self._admitted,
            FirstByte: self._first_byte,
            CacheHit: self._cache_hit,
            CacheMissed: lambda event: self.cache.add(("miss",)),
            Retried: lambda event: self.retries.add((event.error,)),
            FellBack: lambda event: self.fallbacks.add(
                (self._model(event.model), self._model(event.to_model))
            ),
            Throttled: lambda event: self.throttled.add((self._model(event.model),)),
            BreakerChanged: self._breaker_changed,
            ConcurrencyChanged: lambda event: self.concurrency.put(event.after, (self._model(event.model),)),
            BudgetAlert: lambda event: self.alerts.add((event.scope, event.period)),
            StoreDegraded: lambda event: self.degraded.add((event.store,)),
            KeyRotated: lambda event: self.rotations.add(),
        }

    def _make_operation_metrics(self) -> None:
        self.duration = HistogramFamily(
            "gen_ai_client_operation_duration_seconds",
            "Duration of a request, waiting and retries included.",
            (*_OPERATION, "error_type"),
            bounds=DURATION_S,
        )
        self.tokens = HistogramFamily(
            "gen_ai_client_token_usage",
            "Tokens of a request, as counted by the provider.",
            (*_OPERATION, "gen_ai_token_type"),
            bounds=TOKENS,
        )
        self.first_chunk = HistogramFamily(
            "gen_ai_client_operation_time_to_first_chunk_seconds",
            "Time from sending a streamed request upstream to the first chunk of its answer.",
            _OPERATION,
            bounds=FIRST_CHUNK_S,
        )

    def _make_own_metrics(self) -> None:
        self.requests = CounterFamily(
            "ai_client_requests_total", "Finished requests, by outcome.", ("tenant", "model", "code")
        )
        self.cost = CounterFamily(
            "ai_client_cost_usd_total", "Cost booked, in US dollars.", ("tenant", "model")
        )
        self.queue_wait = HistogramFamily(
            "ai_client_queue_wait_seconds",
            "Time that requests waited for admission.",
            ("priority",),
            bounds=WAIT_S,
        )
        self.overhead = HistogramFamily(
            "ai_client_overhead_seconds", "Time that the service itself adds to a request.", bounds=OVERHEAD_S
        )
        self._overhead = self.overhead.cell(())
        self.cache = CounterFamily(
            "ai_client_cache_lookups_total", "Cache look-ups by outcome: hit, shared, miss.", ("outcome",)
        )
        self.retries = CounterFamily("ai_client_retries_total", "Retried attempts, by error.", ("error",))
        self.fallbacks = CounterFamily(
            "ai_client_fallbacks_total",
            "Times that another model was tried instead.",
            ("from_model", "to_model"),
        )
        self.throttled = CounterFamily(
            "ai_client_throttled_total", "Times that the upstream made the service slow down.", ("model",)
        )
        self._make_state_metrics()

    def _make_state_metrics(self) -> None:
        self.billed_unknown = CounterFamily(
            "ai_client_billed_unknown_total", "Failed requests that the provider may have billed."
        )
        self.breaker = GaugeFamily(
            "ai_client_breaker_state", "Circuit breaker: 0 closed, 1 half open, 2 open.", ("model",)
        )
        self.concurrency = GaugeFamily(
            "ai_client_concurrency_limit", "Most requests in parallel, adapted to the upstream.", ("model",)
        )
        self.alerts = CounterFamily(
            "ai_client_budget_alerts_total",
            "Times that a budget passed an alert threshold.",
            ("scope", "period"),
        )
        self.degraded = CounterFamily(
            "ai_client_store_degraded_total", "Failures of a local store.", ("store",)
        )
        self.rotations = CounterFamily(
            "ai_client_key_rotations_total", "Times that the service switched to another key."
        )
        self.reloads = CounterFamily("ai_client_config_reloads_total", "Reloads by outcome.", ("outcome",))
        self.reload_ok = GaugeFamily(
            "ai_client_config_last_reload_successful",
            "1 if the last reload loaded the new configuration, else 0.",
        )
        self.reload_ok.put(1)

    def collect(self) -> Iterator[Metric]:
        """Called by `prometheus_client` at each scrape."""
        for family in vars(self).values():
            if isinstance(family, CounterFamily | GaugeFamily | HistogramFamily):
                yield family.collect()

    def reloaded(self, *, is_ok: bool) -> None:
        """A reload has ended."""
        self.reloads.add(("ok" if is_ok else "failed",))
        self.reload_ok.put(1 if is_ok else 0)

    def _operation(self, event: Settled | Failed | FirstByte) -> tuple[str, str, str]:
        name = _OPERATIONS.get(event.endpoint, event.endpoint)
        return name, self._provider, self._model(event.model)

    def _settled(self, event: Settled) -> None:
        tenant, model = self._tenant(event.tenant), self._model(event.model)
        series = self._series.get((event.endpoint, model, tenant, event.status))
        if series is None:
            series = self._make_series(event, model=model, tenant=tenant)
        latency_s = event.latency_s
        series.duration.observe(latency_s)
        self._overhead.observe(max(0.0, latency_s - event.waited_s - event.upstream_s))
        self.requests.add(series.requests)
        if event.usage is not None and not event.cached:
            self._used(series, event)
        if event.cost_usd:
            self.cost.add(series.cost, event.cost_usd)

    def _used(self, series: _Series, event: Settled) -> None:
        assert event.usage is not None  # noqa: S101 - for the type checker; the caller asked
        if series.input_tokens is None:
            series.input_tokens = self.tokens.cell((*self._operation(event), "input"))
        series.input_tokens.observe(event.usage.input_tokens)
        if not event.usage.output_tokens:
            return
        if series.output_tokens is None:
            series.output_tokens = self.tokens.cell((*self._operation(event), "output"))
        series.output_tokens.observe(event.usage.output_tokens)

    def _make_series(self, event: Settled, *, model: str, tenant: str) -> _Series:
        series = _Series(
            duration=self.duration.cell((*self._operation(event), "")),
            requests=(tenant, model, str(event.status)),
            cost=(tenant, model),
        )
        self._series[(event.endpoint, model, tenant, event.status)] = series
        return series

    def _failed(self, event: Failed) -> None:
        operation = self._operation(event)
        self.duration.observe((*operation, event.code), event.latency_s)
        self.requests.add((self._tenant(event.tenant), operation[2], event.code))
        if event.billed_unknown:
            self.billed_unknown.add()

    def _admitted(self, event: Admitted) -> None:
        self.queue_wait.observe((str(event.priority),), event.waited_s)

    def _first_byte(self, event: FirstByte) -> None:
        self.first_chunk.observe(self._operation(event), event.after_s)

    def _cache_hit(self, event: CacheHit) -> None:
        self.cache.add(("shared" if event.shared else "hit",))

    def _breaker_changed(self, event: BreakerChanged) -> None:
        self.breaker.put(_BREAKER.get(event.after, 2), (self._model(event.model),))

"""The metrics of the service, from the collectors that Prometheus would read."""

from __future__ import annotations

from typing import Any

from prometheus_client.metrics_core import Metric

from ai_client import AIAPIClient
from ai_client.configure.shared_budgets import SharedBudget
from ai_client.coordination.coordinator import Status
from ai_client.gateway.watch import gauges
from ai_client.metrics import Recorder
from tools.pages import markdown

_INTRO = """\
The metrics at `http://127.0.0.1:9090/metrics`. Names follow OpenTelemetry's conventions for generative AI where there
are any. A histogram has `_bucket`, `_sum` and `_count`. Beyond a number of models and tenants, further ones are counted
as `other`. Hosts that [share one quota](../how-to/coordination.md) also have `ai_client_quota_…`, those that share
budgets `ai_client_budget_free_usd` and `ai_client_budget_allowance_left_usd`, and batch hosts
`ai_client_shared_batch…`: each of these says the same of all batches, so take one (`max`)."""


# With `[coordination]` alone, there are metrics of the fleet's quota; their values are on no page.
_SHARED = SharedBudget("all", "day", limit=0, held=0, used=0, free=0)
_COORDINATED = Status("leased", None, 0, 0, 0, 0, 0, False, 0, 0, 0, 0)


def text() -> str:
    """The page."""
    moment = gauges.ServiceState(
        connections=0,
        requests_in_flight=0,
        client=AIAPIClient("hs_test_reference").get_stats(),
        certificate_expires_at_s=0.0,
        quota=_COORDINATED,
        shared_budgets=(_SHARED,),
    )
    recorder = Recorder(provider="", models=(), tenants=())
    moments = gauges.StateCollector(moment)
    moments.batches = ()
    registry = gauges.registry_of(recorder, moments)
    rows = sorted(map(_row, registry.collect()))
    return markdown.page("Metrics", _INTRO, markdown.table(("metric", "kind", "labels", "meaning"), rows))


def _row(metric: Metric) -> tuple[str, str, str, str]:
    name = f"{metric.name}_total" if metric.type == "counter" else metric.name
    return (
        f"`{name}`",
        metric.type,
        ", ".join(f"`{label}`" for label in _labels(metric)),
        metric.documentation,
    )


def _labels(metric: Any) -> tuple[str, ...]:
    """Names of labels, also where there is no sample yet; the library keeps them in no public place."""
    declared = getattr(metric, "_labelnames", ()) or ()
    seen = (label for sample in metric.samples for label in sample.labels)
    return tuple(dict.fromkeys((*declared, *(label for label in seen if label not in {"le", "quantile"}))))

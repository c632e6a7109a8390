"""From the client's events to lines of the log: what an operator looks for. The audit trail has every call."""

from __future__ import annotations

import logging
from dataclasses import fields
from typing import Any

from ai_client import logs
from ai_client.events import (
    BreakerChanged,
    BudgetAlert,
    Event,
    Failed,
    FellBack,
    KeyRotated,
    Retried,
    Settled,
    StoreDegraded,
    Throttled,
)

# Our own part of a request's time that is worth a line.
SLOW_S = 0.1

_LEVELS: dict[type[Any], tuple[str, int]] = {
    Failed: ("request_failed", logging.INFO),
    Retried: ("request_retried", logging.INFO),
    FellBack: ("request_fell_back", logging.INFO),
    Throttled: ("upstream_throttles", logging.INFO),
    BreakerChanged: ("breaker_changed", logging.WARNING),
    BudgetAlert: ("budget_alert", logging.WARNING),
    StoreDegraded: ("store_degraded", logging.ERROR),
    KeyRotated: ("key_rotated", logging.INFO),
}
# The line has its own time; tags are for the ledger.
_LEFT_OUT = frozenset({"at", "cost_tags"})
_log = logging.getLogger("ai_client.events")


def log_event(event: Event) -> None:
    """A listener of the event stream."""
    kind = type(event)
    if kind is Settled:
        _log_slow(event)  # type: ignore[arg-type]  # narrowed by its type above
        return
    found = _LEVELS.get(kind)
    if found is not None and _log.isEnabledFor(found[1]):
        facts = {item.name: getattr(event, item.name) for item in fields(event) if item.name not in _LEFT_OUT}
        _log.log(found[1], found[0], extra=logs.fields(facts))


def _log_slow(event: Settled) -> None:
    overhead_s = event.latency_s - event.waited_s - event.upstream_s
    if overhead_s > SLOW_S:
        facts = {
            "request_id": event.request_id,
            "tenant": event.tenant,
            "model": event.model,
            "endpoint": event.endpoint,
            "overhead_ms": round(1000 * overhead_s, 1),
            "latency_ms": round(1000 * event.latency_s, 1),
            "waited_ms": round(1000 * event.waited_s, 1),
            "upstream_ms": round(1000 * event.upstream_s, 1),
        }
        _log.warning("slow_request", extra=logs.fields(facts))

"""From the client's events to lines of the log: what an operator looks for. The audit trail has every call."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

from ai_client.contract.events import (
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
from ai_client.platform import json_log

# Our own part of a request's time that is worth a line.
SLOW_S = 0.1
MOST_LINES = 20
PERIOD_S = 10.0

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
#: What it listens to.
KINDS: tuple[type[Any], ...] = (Settled, *_LEVELS)
# The line has its own time; tags are for the ledger.
_LEFT_OUT = frozenset({"at", "cost_tags"})
_log = logging.getLogger("ai_client.contract.events")


class EventLog:
    """A listener of the event stream.

    Of each kind no more than a few lines go out in a period: what makes many requests slow or fail at once must not
    be made worse by writing about each. How many were left out is told with the next line.
    """

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began_s: dict[str, float] = {}
        self._written: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()

    def __call__(self, event: Event) -> None:
        """The listener."""
        kind = type(event)
        if kind is Settled:
            overhead_s = event.latency_s - event.waited_s - event.upstream_s  # type: ignore[union-attr]
            if overhead_s > SLOW_S:
                self._write("slow_request", logging.WARNING, _slow_facts(event, overhead_s))  # type: ignore[arg-type]
            return
        found = _LEVELS.get(kind)
        if found is not None and _log.isEnabledFor(found[1]):
            facts = {name: getattr(event, name) for name in event.__struct_fields__ if name not in _LEFT_OUT}
            self._write(*found, facts)

    def _write(self, name: str, level: int, facts: dict[str, Any]) -> None:
        now_s = self._clock()
        if now_s - self._began_s.get(name, float("-inf")) >= PERIOD_S:
            self._began_s[name] = now_s
            self._written[name] = 0
        if self._written[name] >= MOST_LINES:
            self._left_out[name] += 1
            return
        self._written[name] += 1
        left_out = self._left_out.pop(name, 0)
        _log.log(level, name, extra=json_log.fields(facts | {"left_out": left_out} if left_out else facts))


def _slow_facts(event: Settled, overhead_s: float) -> dict[str, Any]:
    return {
        "request_id": event.request_id,
        "tenant": event.tenant,
        "model": event.model,
        "endpoint": event.endpoint,
        "overhead_ms": round(1000 * overhead_s, 1),
        "latency_ms": round(1000 * event.latency_s, 1),
        "waited_ms": round(1000 * event.waited_s, 1),
        "upstream_ms": round(1000 * event.upstream_s, 1),
    }

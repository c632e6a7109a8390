"""What the status page shows of the last minutes, from the client's events: no text of any caller."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ai_client.contract.events import CacheHit, CacheMissed, Event, Failed, Settled

SECONDS = 120
ERRORS = 20
TENANTS = 50
OTHERS = "other"
LATENCIES = 500
#: What it listens to.
KINDS = (Settled, Failed, CacheHit, CacheMissed)


@dataclass(slots=True)
class _Second:
    number: int
    requests: int = 0
    errors: int = 0


@dataclass(slots=True)
class _Tenant:
    requests: int = 0
    errors: int = 0


class RecentActivity:
    """A listener of the event stream."""

    def __init__(self, *, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self._seconds: deque[_Second] = deque(maxlen=SECONDS)
        # By kind, the latest last: one cause that comes a thousand times must not hide the others.
        self._errors: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._tenants: dict[str, _Tenant] = {}
        self._latencies_s: deque[float] = deque(maxlen=LATENCIES)
        self._hits = 0
        self._misses = 0

    def __call__(self, event: Event) -> None:
        """The listener."""
        kind = type(event)
        if kind is Settled:
            if event.endpoint == "models":  # type: ignore[union-attr]
                return  # the service itself asks for the list, too: no figure counts it
            self._ended(event, is_error=False)  # type: ignore[arg-type]
            self._latencies_s.append(event.latency_s)  # type: ignore[union-attr]
        elif kind is Failed:
            self._failed(event)  # type: ignore[arg-type]
        elif kind is CacheHit:
            self._hits += 1
        elif kind is CacheMissed:
            self._misses += 1

    def _ended(self, event: Settled | Failed, *, is_error: bool) -> None:
        number = int(event.at)
        if not self._seconds or self._seconds[-1].number != number:
            self._seconds.append(_Second(number))
        second = self._seconds[-1]
        second.requests += 1
        second.errors += is_error
        known = event.tenant in self._tenants or len(self._tenants) < TENANTS
        tenant = self._tenants.setdefault(event.tenant if known else OTHERS, _Tenant())
        tenant.requests += 1
        tenant.errors += is_error

    def _failed(self, event: Failed) -> None:
        if event.code == "cancelled":
            return
        if event.endpoint != "models":
            self._ended(event, is_error=True)
        model = event.model[:80]
        # Names that callers make up are one kind, told by the latest.
        kind = (event.code, "" if event.code == "model_not_found" else model, event.tenant)
        count = self._errors.pop(kind, {"count": 0})["count"] + 1
        facts = {"at": event.at, "code": event.code, "model": model, "tenant": event.tenant}
        self._errors[kind] = facts | {"request_id": event.request_id, "count": count}
        if len(self._errors) > ERRORS:
            del self._errors[next(iter(self._errors))]

    def as_json(self) -> dict[str, Any]:
        """`per_second` is requests and errors of each of the last 120 seconds, oldest first.

        `errors` has one entry for each kind, the latest first, with how often it came and when it last did;
        `tenants` counts since the start.
        """
        now = int(self._wall_clock())
        by_number = {second.number: second for second in self._seconds}
        window = [by_number.get(now - back) for back in range(SECONDS, 0, -1)]
        latencies = sorted(self._latencies_s)
        looked_up = self._hits + self._misses
        return {
            "per_second": [[each.requests, each.errors] if each else [0, 0] for each in window],
            "latency_s": {f"p{share}": _quantile(latencies, share / 100) for share in (50, 95, 99)},
            "cache_hit_rate": self._hits / looked_up if looked_up else None,
            "errors": list(reversed(self._errors.values())),
            "tenants": {
                name: {"requests": each.requests, "errors": each.errors}
                for name, each in self._tenants.items()
            },
        }


def _quantile(ordered: list[float], share: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None

"""What the status page shows of the last minutes, from the client's events: no text of any caller."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ai_client.contract.events import CacheHit, CacheMissed, Failed, Settled

SECONDS = 120
ERRORS = 20
TENANTS = 50
OTHERS = "other"
LATENCIES = 500


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
    """Listeners of the event stream."""

    def __init__(self, *, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self._seconds: deque[_Second] = deque(maxlen=SECONDS)
        # By kind, the latest last: one cause that comes a thousand times must not hide the others.
        self._errors: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._tenants: dict[str, _Tenant] = {}
        self._latencies_s: deque[float] = deque(maxlen=LATENCIES)
        self._hits = 0
        self._misses = 0
        self._second = _Second(-1)
        #: What takes each kind of event.
        self.listeners: dict[type[Any], Callable[[Any], None]] = {
            Settled: self._settled,
            Failed: self._failed,
            CacheHit: self._hit,
            CacheMissed: self._missed,
        }

    def _hit(self, event: CacheHit) -> None:
        self._hits += 1

    def _missed(self, event: CacheMissed) -> None:
        self._misses += 1

    def _settled(self, event: Settled) -> None:
        if event.endpoint != "models":  # the service itself asks for the list, too: no figure counts it
            self._ended(event, is_error=False)
            self._latencies_s.append(event.latency_s)

    def _ended(self, event: Settled | Failed, *, is_error: bool) -> None:
        number = int(event.at)
        second = self._second
        if second.number != number:
            second = self._second = _Second(number)
            self._seconds.append(second)
        second.requests += 1
        second.errors += is_error
        tenant = self._tenants.get(event.tenant) or self._new_tenant(event.tenant)
        tenant.requests += 1
        tenant.errors += is_error

    def _new_tenant(self, name: str) -> _Tenant:
        return self._tenants.setdefault(name if len(self._tenants) < TENANTS else OTHERS, _Tenant())

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

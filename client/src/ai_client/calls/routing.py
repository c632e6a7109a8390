"""Which model a request goes to, by how important its caller says it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ai_client.contract.request import Importance, Request


@dataclass(frozen=True, slots=True)
class RoutingReport:
    """What was routed so far, and the share of critical requests that was planned for."""

    ordinary: int
    critical: int
    target_critical_share: float | None

    @property
    def actual_critical_share(self) -> float | None:
        total = self.ordinary + self.critical
        return self.critical / total if total else None


class RoutingPolicy(Protocol):
    """Replace it by your own: it is asked once for each request, and must be quick."""

    def route(self, request: Request) -> str:
        """The model to ask; `request.model` leaves it as it is."""
        ...

    def report(self) -> RoutingReport: ...


class ImportanceRouting:
    """Ordinary requests go to the cheap model, critical ones to the strong one; undeclared ones as they ask.

    `critical_share` is what the budget was planned with. It is reported beside the actual share, not enforced:
    to serve a critical request badly because there were many would be worse than to spend more.
    """

    def __init__(self, *, ordinary: str, critical: str, critical_share: float | None = None) -> None:
        self._models = {Importance.ORDINARY: ordinary, Importance.CRITICAL: critical}
        self._counts = {Importance.ORDINARY: 0, Importance.CRITICAL: 0}
        self._critical_share = critical_share

    def route(self, request: Request) -> str:
        importance = request.importance
        if importance is None or request.endpoint in {"embeddings", "models"}:
            return request.model
        self._counts[importance] += 1
        return self._models[importance]

    def report(self) -> RoutingReport:
        return RoutingReport(
            self._counts[Importance.ORDINARY], self._counts[Importance.CRITICAL], self._critical_share
        )

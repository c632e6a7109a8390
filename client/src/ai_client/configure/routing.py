"""Routing as `[routing]` says: a kind of request that has no model of its own there keeps the one that it asks for."""

from __future__ import annotations

from collections import Counter

from ai_client.calls.routing import RoutingReport
from ai_client.contract.request import Importance, Request
from ai_client.settings import RoutingSettings


class DeclaredRouting:
    """A `RoutingPolicy`."""

    def __init__(self, settings: RoutingSettings) -> None:
        self._models = {Importance.ORDINARY: settings.ordinary, Importance.CRITICAL: settings.critical}
        self._critical_share = settings.critical_share
        self._counts: Counter[Importance] = Counter()

    def route(self, request: Request) -> str:
        """The model to ask."""
        importance = request.importance
        if importance is None or request.endpoint in {"embeddings", "models"}:
            return request.model
        self._counts[importance] += 1
        return self._models[importance] or request.model

    def report(self) -> RoutingReport:
        """What was declared so far."""
        return RoutingReport(
            ordinary=self._counts[Importance.ORDINARY],
            critical=self._counts[Importance.CRITICAL],
            target_critical_share=self._critical_share,
        )

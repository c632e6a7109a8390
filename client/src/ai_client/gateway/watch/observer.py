"""What people and Prometheus may see of the service."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import generate_latest

from ai_client import __version__
from ai_client.contract.events import EventStream
from ai_client.gateway.watch.batches import SharedBatches
from ai_client.gateway.watch.gauges import ServiceState, StateCollector, registry_of
from ai_client.gateway.watch.recent_activity import RecentActivity
from ai_client.gateway.watch.spending import Spending, Spent
from ai_client.metrics import Recorder
from ai_client.platform.clock import Clock
from ai_client.settings import Settings

MODELS = 20
BATCHES = 20


class Observer:
    """Answers for the metrics page and the status page.

    Listens to the client's events from its making on. `settings` may be replaced by a reload."""

    def __init__(
        self,
        settings: Settings,
        *,
        events: EventStream,
        ledger: Path,
        look: Callable[[], ServiceState],
        upstreams: Callable[[], list[dict[str, Any]]],
        shared: Callable[[], dict[str, Any]],
        clock: Clock,
    ) -> None:
        self.settings = settings
        self.recorder = _recorder(settings)
        self._activity = RecentActivity(wall_clock=clock.wall)
        self._spending = Spending(ledger, clock=clock)
        self._batches = SharedBatches(clock)
        self._look = look
        self._upstreams = upstreams
        self._shared = shared
        self._clock = clock
        self._began_s = clock.monotonic()
        self._moments = StateCollector(look())
        self._registry = registry_of(self.recorder, self._moments)
        events.subscribe_each(self.recorder.listeners)
        events.subscribe_each(self._activity.listeners)

    async def metrics_text(self) -> bytes:
        """For Prometheus. Looked at here, on the event loop, and written out in a thread."""
        self._moments.moment = self._look()
        self._moments.batches = self._batches.newest(self.settings)
        self._moments.spent = await self._spending.read(self.settings)
        return await asyncio.to_thread(generate_latest, self._registry)

    async def spent(self) -> Spent:
        """What was spent today and this month, some seconds ago at most."""
        return await self._spending.read(self.settings)

    async def status(self) -> dict[str, Any]:
        """For the status page: the whole document, whoever is asked for it, the gateway or the metrics listener."""
        moment = self._look()
        spent = await self._spending.read(self.settings)
        performance = self.settings.performance
        batches = self._batches.newest(self.settings)
        return {
            "host": socket.gethostname(),
            "version": __version__,
            "upstream": urlsplit(self.settings.api.base_url).hostname,
            "up_s": round(self._clock.monotonic() - self._began_s, 1),
            "in_flight": moment.requests_in_flight,
            "answering": moment.client["in_flight"],
            "connections": moment.connections,
            "queued": moment.client["queued"],
            "limits": {
                "rpm": moment.client["limit_requests"],
                "rpm_used": moment.client["window_requests"],
                "tpm": moment.client["limit_tokens"],
                "tpm_used": moment.client["window_tokens"],
                "concurrency": performance.max_concurrent_requests,
                "concurrency_used": moment.client["in_flight"],
            },
            "pool": moment.client["pool"],
            "upstreams": self._upstreams(),
            "models": dict(islice(self._known_models(moment.client), MODELS)),
            "spent": spent.as_json(),
            "shared_batches": None if batches is None else [each.as_json() for each in batches[:BATCHES]],
            **self._activity.as_json(),
            **self._shared(),
        }

    def _known_models(self, client: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """Those that are declared or have answered: callers make up names. The list of models is asked under none."""
        declared = {*self.settings.model_costs, self.settings.models.default}
        for name, each in client["models"].items():
            answered = client["requests"].get(name, 0) - client["errors"].get(name, 0)
            if name and (name in declared or answered > 0):
                yield name, each


def _recorder(settings: Settings) -> Recorder:
    models = {*settings.model_costs, settings.models.default, *settings.models.fallback_chain}
    tenants = [tenant.name for tenant in settings.tenants]
    provider = urlsplit(settings.api.base_url).hostname or "unknown"
    return Recorder(provider=provider, models=models, tenants=tenants)

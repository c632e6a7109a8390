"""What people and Prometheus may see of the service."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import generate_latest

from ai_client import __version__
from ai_client.events import EventStream
from ai_client.gateway.board import KINDS as BOARD_KINDS
from ai_client.gateway.board import Board
from ai_client.gateway.gauges import Moment, MomentCollector, registry_of
from ai_client.gateway.spending import Spending
from ai_client.metrics import Recorder
from ai_client.settings import Settings


class Observer:
    """Listens to the client's events from its making on. `settings` may be replaced by a reload."""

    def __init__(
        self, settings: Settings, *, events: EventStream, ledger: Path, look: Callable[[], Moment]
    ) -> None:
        self.settings = settings
        self.recorder = _recorder(settings)
        self._board = Board(wall_clock=time.time)
        self._spending = Spending(ledger)
        self._look = look
        self._began_s = time.monotonic()
        self._moments = MomentCollector(look())
        self._registry = registry_of(self.recorder, self._moments)
        events.subscribe(self.recorder, *self.recorder.kinds)
        events.subscribe(self._board, *BOARD_KINDS)

    async def metrics_text(self) -> bytes:
        """For Prometheus. Looked at here, on the event loop, and written out in a thread."""
        self._moments.moment = self._look()
        self._moments.spent = await self._spending.read(self.settings)
        return await asyncio.to_thread(generate_latest, self._registry)

    async def status(self) -> dict[str, Any]:
        """For the status page."""
        moment = self._look()
        spent = await self._spending.read(self.settings)
        performance = self.settings.performance
        return {
            "host": socket.gethostname(),
            "version": __version__,
            "upstream": urlsplit(self.settings.api.base_url).hostname,
            "up_s": round(time.monotonic() - self._began_s, 1),
            "in_flight": moment.requests_in_flight,
            "connections": moment.connections,
            "queued": moment.client["queued"],
            "limits": {
                "rpm": performance.rate_limit_rpm,
                "rpm_used": moment.client["window_requests"],
                "tpm": performance.token_limit_tpm,
                "tpm_used": moment.client["window_tokens"],
                "concurrency": performance.max_concurrent_requests,
                "concurrency_used": moment.client["in_flight"],
            },
            # The list of models is asked under no name. Callers choose names: no more than a page can show.
            "pool": moment.client["pool"],
            "models": dict(
                islice(((name, each) for name, each in moment.client["models"].items() if name), 20)
            ),
            "spent": spent.as_json(),
            **self._board.as_json(),
        }


def _recorder(settings: Settings) -> Recorder:
    models = {*settings.model_costs, settings.models.default, *settings.models.fallback_chain}
    tenants = [tenant.name for tenant in settings.tenants]
    provider = urlsplit(settings.api.base_url).hostname or "unknown"
    return Recorder(provider=provider, models=models, tenants=tenants)

"""What is written down and shown of a running service: log, audit trail, traces, metrics, its upstreams' state."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from ai_client.audit.journal import tell_journal
from ai_client.audit.trail import AuditTrail
from ai_client.configure.assembly import LEDGER_NAME
from ai_client.contract.events import EventStream, Failed, Settled
from ai_client.gateway.watch.checkup import Checkup
from ai_client.gateway.watch.event_log import KINDS as LOGGED_KINDS
from ai_client.gateway.watch.event_log import EventLog
from ai_client.gateway.watch.gauges import ServiceState
from ai_client.gateway.watch.metrics_listener import MetricsListener
from ai_client.gateway.watch.observer import Observer
from ai_client.gateway.watch.span_exporter import make_exporter
from ai_client.gateway.watch.upstreams import UpstreamWatch
from ai_client.platform import json_log
from ai_client.platform.clock import Clock
from ai_client.settings import ConfigError, Problem, Settings

CERTIFICATE_EVERY_S = 6 * 3600.0

_log = logging.getLogger(__name__)


class Monitoring:
    """Makes all that looks on, and closes it. Listens to the client's events from its making on."""

    def __init__(
        self,
        settings: Settings,
        *,
        state: Path,
        events: EventStream,
        look: Callable[[float | None], ServiceState],
        upstreams: Callable[[], list[dict[str, Any]]],
        shared: Callable[[], dict[str, Any]],
        clock: Clock,
    ) -> None:
        """`look` tells what is so now, given when the upstream's certificate expires; `upstreams` how they are;
        `shared` what the host shares with others, for the status page. Raises ConfigError where an audit trail that is
        wanted can't be kept: without it nobody may call."""
        self.upstreams = UpstreamWatch(settings, clock=clock)
        self.checkup = Checkup(self.upstreams.default, clock=clock.monotonic)
        events.subscribe(EventLog(clock=clock.monotonic), *LOGGED_KINDS)
        events.subscribe_each(self.upstreams.listeners)
        self.audit = _audit_trail(settings, events, clock)
        self._spans = make_exporter(settings.traces, events=events)
        self.observer = Observer(
            settings,
            events=events,
            ledger=state / LEDGER_NAME,
            look=lambda: look(self.checkup.certificate_expires_at_s),
            upstreams=upstreams,
            shared=shared,
            clock=clock,
        )
        self.metrics = MetricsListener(settings.monitoring, self.observer, wall_clock=clock.wall)

    async def watch_certificate(self, settings: Callable[[], Settings]) -> None:
        """Looks at the upstream's certificate again and again; runs until it is cancelled."""
        while True:
            await self.checkup.look_at_certificate(settings())
            await asyncio.sleep(CERTIFICATE_EVERY_S)

    async def aclose(self) -> None:
        """When nothing more happens: what is still to be written is."""
        async with AsyncExitStack() as ends:  # the last one first
            ends.callback(self._close_audit)
            if self._spans is not None:
                ends.push_async_callback(self._spans.aclose)

    def _close_audit(self) -> None:
        if self.audit is None:
            return
        try:
            self.audit.close()
        except OSError as exc:
            reason = f"{exc.strerror}: the last lines of the trail are lost"
            _log.error("audit_not_written", extra=json_log.fields({"reason": reason}))


def _audit_trail(settings: Settings, events: EventStream, clock: Clock) -> AuditTrail | None:
    if not settings.audit.enabled:
        return None
    folder = settings.logging.log_dir
    try:
        trail = AuditTrail(
            folder,
            retention_days=settings.audit.retention_days,
            events=events,
            on_anchor=tell_journal,
            clock=clock.wall,
        )
    except OSError as exc:
        reason = f"the trail can't be opened ({exc.strerror})"
        remedy = "make folder and files the service user's, or set enabled = false"
        problem = Problem(None, "audit", "enabled", reason, remedy)
        raise ConfigError(path=str(exc.filename or folder), problems=(problem,)) from exc
    events.subscribe(trail, Settled, Failed)
    return trail

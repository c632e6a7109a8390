"""The service's part in a quota that several hosts share: its window, and the task that keeps it."""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ai_client.client import AIAPIClient
from ai_client.configure.coordination import (
    ClientAdmission,
    Seat,
    account_of,
    books_of,
    endpoint_of,
    most_rpm,
    note_joined,
    random_source,
    take_seat,
)
from ai_client.configure.health import Check
from ai_client.configure.shared_budgets import SharedBudget, escrow_of, plan_of, rider_of
from ai_client.contract.events import EventStream, Throttled
from ai_client.coordination.budget_wire import BudgetKeys
from ai_client.coordination.endpoint import Endpoint, EngineError
from ai_client.coordination.host_report import known_hosts
from ai_client.coordination.lease import Mode
from ai_client.coordination.protocol import Terms
from ai_client.coordination.status import RECOVERING, Status, status_of
from ai_client.coordination.wire import Keys
from ai_client.gateway.process.self_report import SelfReport
from ai_client.platform import json_log
from ai_client.settings import ConfigError, Settings

if TYPE_CHECKING:
    from ai_client.coordination.coordinator import Coordinator
    from ai_client.coordination.link import EngineLink

_LEASES = "shared_quota"
_NOT_SHARED = "this host shares its quota with no other: [coordination] has no endpoint"

_LEFT = (
    "this host changed its engine, account or name, and what it had lent there is to come back first; "
    "that takes three minutes"
)

_log = logging.getLogger(__name__)


class Quota:
    """Nothing where no coordination is declared."""

    def __init__(
        self, settings: Settings, *, state: Path, events: EventStream, report: Callable[[], SelfReport]
    ) -> None:
        self._seat = take_seat(settings, state)
        self.window = None if self._seat is None else self._seat.window
        #: Requests a minute that this host may ever send: what it asks for, and what its window's memory holds.
        self.most = most_rpm(settings)
        self._settings = settings
        self._state = state
        self._events = events
        self._report = report
        self._admission: ClientAdmission | None = None
        self._endpoint: Endpoint | None = None
        self._coordinator: Coordinator | None = None
        self.escrow = escrow_of(settings)
        self._rider = rider_of(settings, state, self.escrow, tell=events.emit)
        self._tasks: list[asyncio.Task[None]] = []
        #: Whether what this host lent under other books is to come back first.
        self._waits = False

    def serve(self, client: AIAPIClient) -> None:
        """The client whose admission the window is: the first, or the one that took its place."""
        if self._admission is None:
            self._admission = ClientAdmission(client)
        else:
            self._admission.client = client

    def start(self) -> None:
        """Begin to call the engine. Raises ConfigError where the password can't be read."""
        seat = self._seat
        if seat is None or self._admission is None or seat.asks_in_s is None:
            return
        self._endpoint = endpoint_of(self._settings)
        loop = asyncio.get_running_loop()
        # What is said of this host must not end what keeps its lease.
        self._tasks = [loop.create_task(self._keep(seat)), loop.create_task(self._report().watch())]

    async def _keep(self, seat: Seat) -> None:
        """Call the engine, once what this host lent under other books is back."""
        if seat.asks_in_s and self._coordinator is None:
            _log.warning(
                "quota_waits", extra=json_log.fields({"seconds": round(seat.asks_in_s), "reason": _LEFT})
            )
            self._waits = True
            self.escrow.trouble = f"the coordination engine is not asked yet: {_LEFT}"
            await asyncio.sleep(seat.asks_in_s)
            self._waits = False
            note_joined(self._settings, self._state)
        coordinator = self._coordinator or await self._begin(seat)
        await coordinator.run()

    async def _begin(self, seat: Seat) -> Coordinator:
        # Not all hosts have an engine, and its library takes memory, and as long as the whole service to load.
        module = await asyncio.to_thread(importlib.import_module, "ai_client.coordination.coordinator")
        assert self._endpoint is not None and self._admission is not None  # noqa: S101, PT018 - for the type checker
        coordinator: Coordinator = module.Coordinator(
            self._endpoint,
            account=account_of(self._settings),
            window=seat.window,
            admission=self._admission,
            most=self.most,
            terms=Terms(),
            random_source=random_source(),
            report=self._host_report,
            rider=self._rider,
        )
        self._events.subscribe(coordinator, Throttled)
        self._coordinator = coordinator
        return coordinator

    def _host_report(self) -> str:
        """What this host says of itself."""
        status = self.status()
        if status is None:
            return ""
        return self._report().encoded(mode=status.mode.value, rpm=status.limit)

    async def told_of_fleet(self) -> dict[str, Any]:
        """What all hosts of the quota last said of themselves, or why that is not known."""
        if self._settings.coordination.endpoint is None:
            return {"error": _NOT_SHARED}
        try:
            async with self._ask() as (link, keys):
                reports = await link.host_reports(keys)
        except (EngineError, ConfigError) as exc:
            return {"error": str(exc)}
        found = known_hosts(reports.texts, reports.said_at_s, now_s=reports.now_s)
        told: dict[str, Any] = {"hosts": [each.as_json() for each in found]}
        return told if self._rider is None else {**told, "budgets": [b.as_json() for b in self.budgets()]}

    async def told_to_forget(self, host: str) -> dict[str, Any]:
        """Takes a host out that is gone for good: whether it is out, or why that is not known; and who has reported."""
        if self._settings.coordination.endpoint is None:
            return {"error": _NOT_SHARED}
        try:
            async with self._ask() as (link, keys):
                known = sorted((await link.host_reports(keys)).texts)
                is_out = await link.forget(keys, host)
                if is_out and self._rider is not None:
                    await link.forget_budgets(BudgetKeys(keys.account), host)
                return {"forgotten": is_out, "was_known": host in known, "known": known}
        except (EngineError, ConfigError) as exc:
            return {"error": str(exc)}

    @asynccontextmanager
    async def _ask(self) -> AsyncIterator[tuple[EngineLink, Keys]]:
        """A connection of its own: that of the calls is never given up in the middle of an answer."""
        from ai_client.coordination.link import EngineLink  # noqa: PLC0415  (as in `_begin`)

        has_tokens = self.window is not None and self.window.tokens is not None
        keys = Keys(account_of(self._settings), ("requests", "tokens") if has_tokens else ("requests",))
        link = EngineLink(endpoint_of(self._settings), timeout_s=Terms().answer_ms / 1000)
        try:
            yield link, keys
        finally:
            await link.close()

    def endpoint_for(self, settings: Settings) -> Endpoint | None:
        """With the password as it is now, for `reload`. Raises ConfigError where it can't be read."""
        if self._endpoint is None or settings.coordination != self._settings.coordination:
            return None
        return endpoint_of(settings)

    def reload(self, settings: Settings, endpoint: Endpoint | None) -> None:
        """Take a new password of the engine's user, and a new rate limit; where the engine is takes a new process."""
        self.most = most_rpm(replace(settings, coordination=self._settings.coordination))
        self._endpoint = endpoint or self._endpoint
        if self._rider is not None:
            self._rider.declare(plan_of(settings))
        if self._coordinator is not None:
            self._coordinator.ask_at_most(self.most)
            if endpoint is not None:
                self._coordinator.renew(endpoint)

    async def hand_over(self) -> dict[str, Any]:
        """Ends this process's part, and gives what the next one needs to go on with it."""
        await self.stop()
        if self._seat is None:
            return {}
        return {_LEASES: {"books": books_of(self._settings), "leases": self._seat.window.hand_over()}}

    def take_back(self) -> None:
        """The next process does not serve after all."""
        if self._seat is not None:
            self._seat.window.take_back()
        self.start()

    def inherit(self, state: Mapping[str, Any]) -> None:
        """Goes on with what the process before handed over; of other books it says nothing here."""
        told = state.get(_LEASES)
        if self._seat is None or not isinstance(told, dict) or told.get("books") != books_of(self._settings):
            return
        if not self._seat.window.inherit(told.get("leases")):
            _log.warning("lease_not_understood")

    async def stop(self) -> None:
        """Ask the engine no more; what is leased ends by itself. Calling it twice is fine."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._rider is not None:
            await self._rider.close()

    def budgets(self) -> tuple[SharedBudget, ...]:
        """Those that hosts share, as they stood when the engine was last asked."""
        return () if self._rider is None else self._rider.budgets()

    def told(self) -> dict[str, Any]:
        """For the status page: the quota that is shared, and the budgets; None where they are not."""
        budgets = None
        if self._rider is not None:
            told = [each.as_json() for each in self.budgets()]
            budgets = {"trouble": self.escrow.trouble, "budgets": told}
        return {"coordination": self.as_json(), "shared_budgets": budgets}

    def status(self) -> Status | None:
        """How it stands; None where there is no coordination."""
        if self._coordinator is not None:
            return self._coordinator.status()
        return None if self._seat is None or self._seat.asks_in_s is None else status_of(self._seat.window)

    def check(self) -> Check | None:
        """For the health check."""
        status = self.status()
        if status is None:
            return None
        limit = f"{status.limit} requests a minute of {status.slots}, {status.mode}"
        if status.trouble is not None:
            return Check(False, f"{status.trouble}; this host continues with {limit}")
        if self._waits:
            return Check(True, f"{status.limit} requests a minute, {status.mode}: {_LEFT}")
        hosts = "1 host" if status.hosts == 1 else f"{status.hosts} hosts"
        recovering = f"; {RECOVERING}" if status.is_recovering and status.mode is Mode.LEASED else ""
        return Check(True, f"{limit}; {hosts}{recovering}")

    def as_json(self) -> dict[str, Any] | None:
        """For the status page."""
        status = self.status()
        if status is None:
            return None
        return {
            "mode": status.mode.value,
            "trouble": status.trouble,
            "rpm": status.limit,
            "share": status.share,
            "free": status.pool,
            "fleet_rpm": status.slots,
            "hosts": status.hosts,
            "recovering": status.is_recovering,
        }

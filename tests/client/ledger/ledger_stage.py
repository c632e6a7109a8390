"""Ledgers on one file under a clock that moves only when told."""

import sqlite3
from pathlib import Path

from ai_client.contract.events import Event, EventStream
from ai_client.contract.request import Usage
from ai_client.contract.stores import EntryId
from ai_client.ledger.budgets import ALL_TENANTS, Budget, BudgetPlan, Span
from ai_client.ledger.ledger import SpendLedger
from ai_client.ledger.prices import Price, Prices, dollars_to_nusd
from ai_client.platform.clock import ManualClock
from tests.client.ledger.ledger_waiting import granted

# A dollar a thousand tokens, so that sums in tests are easy to see.
PRICES = Prices({"m": Price(10**12, 10**12, 5 * 10**11)})
NOV_24 = 1_795_500_000.0  # 2026-11-24 06:00 UTC


def dollar_plan(
    *, daily: int | None = None, monthly: int | None = None, tenant_daily: int | None = None, **more: bool
) -> BudgetPlan:
    wanted = [
        (ALL_TENANTS, Span.DAY, daily),
        (ALL_TENANTS, Span.MONTH, monthly),
        ("team-a", Span.DAY, tenant_daily),
    ]
    budgets = [
        Budget(scope, span, dollars_to_nusd(limit)) for scope, span, limit in wanted if limit is not None
    ]
    return BudgetPlan(budgets=tuple(budgets), hard_stop=more.get("hard_stop", True))


class Stage:
    """Makes ledgers on one file and closes them in the end."""

    def __init__(self, path: Path, clock: ManualClock) -> None:
        self.path = path
        self.clock = clock
        self.events = EventStream()
        self.seen: list[Event] = []
        self.events.subscribe(self.seen.append)
        self.made: list[SpendLedger] = []

    def ledger(self, plan: BudgetPlan | None = None, **tags: str) -> SpendLedger:
        made = SpendLedger(
            self.path, prices=PRICES, plan=plan, tags=tags, clock=self.clock, events=self.events
        )
        self.made.append(made)
        return made

    def files(self) -> list[Path]:
        return list(self.path.parent.iterdir())

    def rows(self, query: str, *parameters: object) -> list[tuple[object, ...]]:
        db = sqlite3.connect(self.path)
        try:
            return db.execute(query, parameters).fetchall()
        finally:
            db.close()

    def totals(self, period: str = "2026-11-24") -> dict[str, tuple[int, int]]:
        """Whole dollars held and spent by tenant."""
        rows = self.rows("SELECT tenant, held_nusd, spent_nusd FROM total WHERE period = ?", period)
        return {tenant: (held // 10**9, spent // 10**9) for tenant, held, spent in rows}  # type: ignore[operator,misc]


async def reserve(ledger: SpendLedger, dollars: int, *, tenant: str = "team-a") -> EntryId:
    """A reserve of so many dollars."""
    request = ledger.reserve(
        request_id="r", model="m", tenant=tenant, upper=Usage(0, dollars * 1_000), tags={}
    )
    return await granted(request, ledger)

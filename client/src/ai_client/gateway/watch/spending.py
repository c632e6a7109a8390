"""What was spent today and this month, from the ledger, against the budgets."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ai_client.ledger.budgets import BudgetPlan, Span
from ai_client.ledger.periods import Calendar
from ai_client.ledger.prices import NANO_PER_DOLLAR, nusd_to_dollars
from ai_client.ledger.usage import read_usage
from ai_client.platform.clock import Clock
from ai_client.settings import Settings

KEPT_S = 10.0
# No tenant has this name.
_ALL = ""


@dataclass(frozen=True, slots=True)
class BudgetState:
    """One budget. `scope` is `all` or a tenant, `period` `day` or `month`."""

    scope: str
    period: str
    limit_usd: float
    spent_usd: float

    @property
    def used_ratio(self) -> float:
        """Spent over limit; 1 for a budget of nothing."""
        return self.spent_usd / self.limit_usd if self.limit_usd else 1.0


@dataclass(frozen=True, slots=True)
class Spent:
    """US dollars, and the budgets that they count against."""

    today_usd: float = 0.0
    month_usd: float = 0.0
    #: Which day that is, such as 2026-11-28; empty where the ledger was never read.
    day: str = ""
    today_by_model: tuple[tuple[str, float], ...] = ()
    today_by_tenant: tuple[tuple[str, float], ...] = ()
    budgets: tuple[BudgetState, ...] = ()
    #: Of each tenant: its name, today's and this month's nano-dollars.
    by_tenant: tuple[tuple[str, int, int], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For the status page."""
        return {
            "today_usd": self.today_usd,
            "month_usd": self.month_usd,
            "today_by_model": dict(self.today_by_model),
            "today_by_tenant": dict(self.today_by_tenant),
            "budgets": [
                {
                    "scope": budget.scope,
                    "period": budget.period,
                    "limit_usd": budget.limit_usd,
                    "spent_usd": budget.spent_usd,
                }
                for budget in self.budgets
            ],
        }


class Spending:
    """Reads the ledger in a thread, and keeps the answer for some seconds."""

    def __init__(self, ledger: Path, *, clock: Clock) -> None:
        self._clock = clock
        self._ledger = ledger
        self._kept: tuple[float, Spent] | None = None

    async def read(self, settings: Settings) -> Spent:
        """The newest answer; of before where the ledger can't be read just now."""
        now_s = self._clock.monotonic()
        if self._kept is not None and now_s - self._kept[0] < KEPT_S:
            return self._kept[1]
        try:
            spent = await asyncio.to_thread(_read, self._ledger, settings, self._clock.wall())
        except sqlite3.Error:
            return Spent() if self._kept is None else self._kept[1]
        self._kept = (now_s, spent)
        return spent


def _read(ledger: Path, settings: Settings, now_s: float) -> Spent:
    period = Calendar(settings.budget.timezone).period(now_s)
    first = f"{period.month}-01"
    # One read: of two, what is spent between them would make a day dearer than its month.
    month = read_usage(ledger, first_day=first, last_day=period.day, by=("day", "tenant", "model"))
    nusd: Counter[tuple[str, str]] = Counter()
    by_model: Counter[str] = Counter()
    for row in month.rows:
        day, tenant, model = row.group
        nusd[tenant, Span.MONTH] += row.cost_nusd
        nusd[_ALL, Span.MONTH] += row.cost_nusd
        if day == period.day:
            nusd[tenant, Span.DAY] += row.cost_nusd
            nusd[_ALL, Span.DAY] += row.cost_nusd
            by_model[model] += row.cost_nusd
    spent = {key: float(nusd_to_dollars(amount)) for key, amount in nusd.items()}
    totals = {span: spent.get((_ALL, span), 0.0) for span in (Span.DAY, Span.MONTH)}
    return Spent(
        today_usd=totals[Span.DAY],
        month_usd=totals[Span.MONTH],
        day=period.day,
        today_by_model=tuple(
            (name, float(nusd_to_dollars(amount))) for name, amount in sorted(by_model.items())
        ),
        today_by_tenant=tuple(
            (tenant, amount)
            for (tenant, span), amount in sorted(spent.items())
            if span == Span.DAY and tenant != _ALL
        ),
        budgets=tuple(_budgets(settings, spent, totals)),
        by_tenant=tuple(
            (tenant, nusd[tenant, Span.DAY], amount)
            for (tenant, span), amount in sorted(nusd.items())
            if span == Span.MONTH and tenant != _ALL
        ),
    )


def _budgets(
    settings: Settings, spent: Mapping[tuple[str, str], float], totals: Mapping[Span, float]
) -> Iterator[BudgetState]:
    """Each budget beside what is spent of it: by its tenant, or by all."""
    tenants = {tenant.name for tenant in settings.tenants}
    for budget in BudgetPlan.from_settings(settings.budget, settings.tenants).budgets:
        is_one_tenants = budget.scope in tenants
        yield BudgetState(
            scope=budget.scope if is_one_tenants else "all",
            period=budget.span,
            limit_usd=budget.limit_nusd / NANO_PER_DOLLAR,
            spent_usd=spent.get((budget.scope, budget.span), 0.0) if is_one_tenants else totals[budget.span],
        )

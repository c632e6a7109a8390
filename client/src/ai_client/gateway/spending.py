"""What was spent today and this month, from the ledger, against the budgets."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ai_client.budgets import BudgetPlan, Span
from ai_client.ledger_usage import read_usage
from ai_client.periods import Calendar
from ai_client.prices import NANO_PER_DOLLAR
from ai_client.settings import Settings

KEPT_S = 10.0


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
    today_by_model: tuple[tuple[str, float], ...] = ()
    budgets: tuple[BudgetState, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For the status page."""
        return {
            "today_usd": self.today_usd,
            "month_usd": self.month_usd,
            "today_by_model": dict(self.today_by_model),
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

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger
        self._kept: tuple[float, Spent] | None = None

    async def read(self, settings: Settings) -> Spent:
        """The newest answer; of before where the ledger can't be read just now."""
        now_s = time.monotonic()
        if self._kept is not None and now_s - self._kept[0] < KEPT_S:
            return self._kept[1]
        try:
            spent = await asyncio.to_thread(_read, self._ledger, settings, time.time())
        except sqlite3.Error:
            return Spent() if self._kept is None else self._kept[1]
        self._kept = (now_s, spent)
        return spent


def _read(ledger: Path, settings: Settings, now_s: float) -> Spent:
    period = Calendar(settings.budget.timezone).period(now_s)
    first = f"{period.month}-01"
    month = read_usage(ledger, first_day=first, last_day=period.day, by=("tenant",))
    today = read_usage(ledger, first_day=period.day, last_day=period.day, by=("tenant", "model"))
    by_model: dict[str, float] = {}
    spent: dict[tuple[str, str], float] = {}
    for row in today.rows:
        tenant, model = row.group
        by_model[model] = by_model.get(model, 0.0) + float(row.cost_usd)
        spent[tenant, Span.DAY] = spent.get((tenant, Span.DAY), 0.0) + float(row.cost_usd)
    for row in month.rows:
        spent[row.group[0], Span.MONTH] = float(row.cost_usd)
    totals = {Span.DAY: float(today.total.cost_usd), Span.MONTH: float(month.total.cost_usd)}
    plan = BudgetPlan.from_settings(settings.budget, settings.tenants)
    tenants = {tenant.name for tenant in settings.tenants}
    return Spent(
        today_usd=totals[Span.DAY],
        month_usd=totals[Span.MONTH],
        today_by_model=tuple(sorted(by_model.items())),
        budgets=tuple(
            BudgetState(
                scope=budget.scope if budget.scope in tenants else "all",
                period=budget.span,
                limit_usd=budget.limit_nusd / NANO_PER_DOLLAR,
                spent_usd=spent.get((budget.scope, budget.span), 0.0)
                if budget.scope in tenants
                else totals[budget.span],
            )
            for budget in plan.budgets
        ),
    )

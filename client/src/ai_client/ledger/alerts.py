"""Alerts of budgets: which thresholds are passed, and who tells it, once."""

from __future__ import annotations

import sqlite3
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Final

from ai_client.contract.events import BudgetAlert
from ai_client.ledger.budgets import ALL_TENANTS, Amount, Budget, Span, shares_passed
from ai_client.ledger.prices import NANO_PER_DOLLAR

_ALERT: Final = "INSERT OR IGNORE INTO alert(period, scope, limit_nusd, share, told_at) VALUES(?, ?, ?, ?, ?)"

AlertKey = tuple[str, str, int, float]


@dataclass(frozen=True, slots=True)
class Alert:
    """A budget's booked amount has reached a share of its limit, for the first time in its period."""

    budget: Budget
    period: str
    spent_nusd: int
    share: float

    @property
    def key(self) -> AlertKey:
        return (self.period, self.budget.scope, self.budget.limit_nusd, self.share)

    def is_first(self, db: sqlite3.Connection, now_s: float) -> bool:
        """Whether of all processes on this file the caller is to tell it."""
        return db.execute(_ALERT, (*self.key, now_s)).rowcount == 1

    def as_event(self, at: float, *, by_all_hosts: bool = False) -> BudgetAlert:
        """What listeners are told of it."""
        return BudgetAlert(
            at=at,
            scope=scope_name(self.budget.scope),
            period=self.period,
            limit_usd=self.budget.limit_nusd / NANO_PER_DOLLAR,
            spent_usd=self.spent_nusd / NANO_PER_DOLLAR,
            threshold=self.share,
            by_all_hosts=by_all_hosts,
        )


def scope_name(scope: str) -> str:
    """The scope as users read it."""
    return "all" if scope == ALL_TENANTS else scope


@dataclass(slots=True)
class SharedAlerts:
    """Thresholds that all hosts together have passed. The engine's books name one host for each, which tells it.

    `shares` are those of `BudgetPlan.alert_shares`. A budget is known by its scope and period.
    """

    shares: Sequence[float]
    #: What all hosts had spent at the last call, and the limit that ruled.
    _stands: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    #: Those that some host tells.
    _told: set[AlertKey] = field(default_factory=set)

    def keep(self, budgets: Container[tuple[str, str]]) -> None:
        """Forgets all others."""
        self._stands = {key: each for key, each in self._stands.items() if key in budgets}
        self._told = {each for each in self._told if (each[1], each[0]) in budgets}

    def due(self, scope: str, period: str) -> Alert | None:
        """The lowest threshold that was passed and that nobody is known to tell."""
        spent, limit = self._stands.get((scope, period), (0, 0))
        budget = Budget(scope, Span.DAY if len(period) > len("2026-11") else Span.MONTH, max(0, limit))
        alerts = (
            Alert(budget, period, spent, share)
            for share in shares_passed(budget, Amount(0, spent), self.shares)
        )
        return next((each for each in alerts if each.key not in self._told), None)

    def heard(self, scope: str, period: str, *, spent: int, limit: int) -> None:
        """What the books say of a budget now."""
        self._stands[scope, period] = (spent, limit)

    def settled(self, alert: Alert) -> None:
        """The books have named who tells it."""
        self._told.add(alert.key)


def mark_of(alert: Alert | None) -> str:
    """How the books know a threshold of a budget; "" for none."""
    return "" if alert is None else f"{alert.share:g}@{alert.budget.limit_nusd}"

"""What is held and spent of each budget, read once and kept while nobody else writes."""

import sqlite3
from dataclasses import dataclass, field
from typing import Final

from ai_client.ledger.allowance import read_allowance
from ai_client.ledger.budgets import ALL_TENANTS, Amount, Budget, BudgetPlan, Span
from ai_client.platform.sqlite_file import one_int

_ADD: Final = (
    "INSERT INTO total(period, tenant, held_nusd, spent_nusd) VALUES(?, ?, ?, ?)"
    " ON CONFLICT DO UPDATE SET held_nusd = held_nusd + excluded.held_nusd,"
    " spent_nusd = spent_nusd + excluded.spent_nusd"
)
_ONE_TENANT: Final = "SELECT held_nusd, spent_nusd FROM total WHERE period = ? AND tenant = ?"
_EVERY_TENANT: Final = "SELECT sum(held_nusd), sum(spent_nusd) FROM total WHERE period = ?"
# A tenant's stands of past days are of no more use; there are few of them, so all go together.
_MAX_STANDS: Final = 1_000


@dataclass(slots=True)
class Stand:
    """How one tenant stands on one day: the budgets it counts against, each with its amount.

    Stands share the amounts that they have in common (all tenants', a month's); `amounts` has each of its own once.
    """

    day: str
    tenant: str
    checks: tuple[tuple[Budget, Amount], ...]
    amounts: tuple[Amount, ...]
    #: What this transaction adds, not yet in the table.
    change: Amount = field(default_factory=lambda: Amount(0, 0))

    def add(self, *, held_nusd: int, spent_nusd: int) -> None:
        """Adds to the tenant's day and month, and so to every budget that it counts against."""
        self.change.held_nusd += held_nusd
        self.change.spent_nusd += spent_nusd
        for amount in self.amounts:
            amount.held_nusd += held_nusd
            amount.spent_nusd += spent_nusd


class Totals:
    """Stands by day and tenant. Within a transaction: `begin`, `stand`…, `finish`; after a roll-back: `forget`."""

    def __init__(self, db: sqlite3.Connection, plan: BudgetPlan) -> None:
        self._db = db
        self._plan = plan
        self._version = -1
        self._amounts: dict[tuple[str, str], Amount] = {}
        self._stands: dict[tuple[str, str], Stand] = {}
        self._changed: dict[tuple[str, str], Stand] = {}

    def begin(self) -> None:
        """Drops what another connection has made stale."""
        version = one_int(self._db, "PRAGMA data_version")
        if version != self._version or len(self._stands) > _MAX_STANDS:
            self.forget()
            self._version = version

    def stand(self, day: str, tenant: str) -> Stand:
        """How the tenant stands, changes of this transaction included. Whoever asks will change it."""
        key = (day, tenant)
        known = self._stands.get(key)
        if known is None:
            # Amounts are read from the table, so changes that are not in it yet have to be there first.
            self.finish()
            known = self._stands[key] = self._read(day, tenant)
        self._changed[key] = known
        return known

    def finish(self) -> None:
        """Brings the changes into the table."""
        for stand in self._changed.values():
            change = stand.change
            if not (change.held_nusd or change.spent_nusd):
                continue  # whoever asked was refused
            for period in (stand.day, stand.day[:7]):
                self._db.execute(_ADD, (period, stand.tenant, change.held_nusd, change.spent_nusd))
            change.held_nusd = change.spent_nusd = 0
        self._changed.clear()

    def forget(self) -> None:
        """Nothing that is remembered is sure any more."""
        self._version = -1
        self._amounts.clear()
        self._stands.clear()
        self._changed.clear()

    def _read(self, day: str, tenant: str) -> Stand:
        checks = tuple((budget, self._amount(budget, day)) for budget in self._plan.of(tenant))
        distinct = {id(amount): amount for _, amount in checks}
        return Stand(day, tenant, checks, tuple(distinct.values()))

    def _amount(self, budget: Budget, day: str) -> Amount:
        key = (period_name(budget, day), budget.scope)
        known = self._amounts.get(key)
        if known is None:
            if budget.scope == ALL_TENANTS:
                row = self._db.execute(_EVERY_TENANT, key[:1]).fetchone()
            else:
                row = self._db.execute(_ONE_TENANT, key).fetchone()
            known = Amount(*(value or 0 for value in row)) if row else Amount(0, 0)
            if self._plan.shared_by:
                known.allowed_nusd = read_allowance(self._db, self._plan.shared_by, *key)
            self._amounts[key] = known
        return known


def period_name(budget: Budget, day: str) -> str:
    """The budget's period that holds `day`: the day itself, or its month."""
    return day if budget.span is Span.DAY else day[:7]

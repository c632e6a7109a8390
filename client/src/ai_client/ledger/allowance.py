"""What this host may use of budgets that it shares with others, in the ledger's file.

`granted` and `returned` of a budget only grow within its period; a host may use `granted - returned`. What was granted
is in the file before anything is spent of it, since `Book` reads it there, in the transaction that it spends in. What
is given back is in the file, and on the disk, before anybody is told. So no kill, at any step, spends anything twice.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ai_client.ledger.alerts import Alert
from ai_client.ledger.budgets import ALL_TENANTS
from ai_client.ledger.schema import open_ledger
from ai_client.platform.sqlite_file import Transaction

_BUSY_TIMEOUT_S: Final = 5.0
_NAME: Final = "ledger_name"
_SETTLED: Final = "settled:"

_ALLOWED: Final = (
    "SELECT granted_nusd - returned_nusd FROM allowance WHERE account = ? AND period = ? AND scope = ?"
)
_ROWS: Final = """
SELECT scope, period, granted_nusd, returned_nusd FROM allowance
WHERE account = ? AND (length(period) = 10 AND period >= ? OR length(period) = 7 AND period >= ?)
"""
_TAKE: Final = """
INSERT INTO allowance(account, period, scope, granted_nusd, returned_nusd) VALUES(?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET granted_nusd = max(granted_nusd, excluded.granted_nusd),
    returned_nusd = max(returned_nusd, excluded.returned_nusd)
"""
_GIVE_BACK: Final = """
UPDATE allowance SET returned_nusd = max(returned_nusd, granted_nusd - ?)
WHERE account = ? AND period = ? AND scope = ?
"""

#: A scope and a period.
BudgetKey = tuple[str, str]


def read_allowance(db: sqlite3.Connection, account: str, period: str, scope: str) -> int:
    """What this host may use of a budget: nothing where it was never granted any."""
    row = db.execute(_ALLOWED, (account, period, scope)).fetchone()
    return 0 if row is None else int(row[0])


@dataclass(slots=True)
class Escrow:
    """What a ledger and who keeps its allowance tell each other. `account` names who shares; "" where nobody does."""

    account: str = ""
    #: Why there may be no more to be had just now, for callers that are refused; None where nothing is wrong.
    trouble: str | None = None
    #: The largest that was refused since it was last looked at, by scope and period.
    refused: dict[BudgetKey, int] = field(default_factory=dict)

    def note_refusal(self, key: BudgetKey, asked_nusd: int) -> None:
        """So much is wanted at least."""
        self.refused[key] = max(asked_nusd, self.refused.get(key, 0))

    def take_refusals(self) -> dict[BudgetKey, int]:
        """Those since the last time."""
        refused, self.refused = self.refused, {}
        return refused


@dataclass(frozen=True, slots=True)
class Standing:
    """One shared budget in one period on this host."""

    scope: str
    period: str
    granted: int
    returned: int
    #: Spent, with what is set aside for calls in flight; and without.
    used: int
    spent: int

    @property
    def key(self) -> BudgetKey:
        return (self.scope, self.period)

    @property
    def held(self) -> int:
        return self.granted - self.returned


@dataclass(frozen=True, slots=True)
class OnFile:
    """What the file has. `ledger` names it: no other file has that name."""

    ledger: str
    roster: tuple[str, ...]
    is_settled: bool
    standings: Mapping[BudgetKey, Standing]


class AllowanceFile:
    """The allowance of one account in a ledger's file, on a connection of its own that syncs each commit to the disk.

    For one thread at a time, never the event loop's: it waits for locks and disks. Raises `sqlite3.Error`, OSError,
    LedgerTooNewError.
    """

    def __init__(self, path: Path, *, account: str) -> None:
        """Opens nothing yet."""
        self._path = path
        self._account = account
        self._db: sqlite3.Connection | None = None
        self._inode = 0

    def look(self, keys: Sequence[BudgetKey], *, since: tuple[str, str]) -> OnFile:
        """What is there of these budgets, and of any other since a day and a month.

        What was spent of one before it was shared counts as granted.
        """
        db = self._open()
        with Transaction(db):
            name, roster = self._name(db), self._roster(db)
            found = {(scope, period): numbers for scope, period, *numbers in self._rows(db, since)}
            for scope, period in keys:
                if (scope, period) not in found:
                    used, _ = _used(db, scope, period)
                    db.execute(_TAKE, (self._account, period, scope, used, 0))
                    found[scope, period] = [used, 0]
            standings = {
                key: Standing(*key, granted, returned, *_used(db, *key))
                for key, (granted, returned) in found.items()
            }
            settled = db.execute("SELECT 1 FROM meta WHERE name = ?", (_SETTLED + self._account,)).fetchone()
        return OnFile(name, roster, settled is not None, standings)

    def give_back(self, keep: Mapping[BudgetKey, int]) -> None:
        """Keeps so much of these budgets, or what is used by now where that is more."""
        db = self._open()
        with Transaction(db):
            for (scope, period), nusd in keep.items():
                kept = max(nusd, _used(db, scope, period)[0])
                db.execute(_GIVE_BACK, (kept, self._account, period, scope))

    def take(
        self,
        grants: Mapping[BudgetKey, tuple[int, int]],
        *,
        ledger: str,
        roster: Sequence[str] | None,
        is_settled: bool,
    ) -> None:
        """What `ledger` was granted and gave back in all, and who is there (None: as before)."""
        db = self._open()
        with Transaction(db):
            if self._name(db) != ledger:
                return  # the file was replaced: it was granted nothing
            for (scope, period), (granted, returned) in grants.items():
                db.execute(_TAKE, (self._account, period, scope, granted, returned))
            if roster is not None:
                db.execute("DELETE FROM fellow WHERE account = ?", (self._account,))
                rows = [(self._account, host) for host in roster]
                db.executemany("INSERT INTO fellow(account, host) VALUES(?, ?)", rows)
            if is_settled:
                db.execute(
                    "INSERT OR IGNORE INTO meta(name, value) VALUES(?, '1')", (_SETTLED + self._account,)
                )

    def are_first(self, alerts: Sequence[Alert], now_s: float) -> list[Alert]:
        """Those that no process on this file has told."""
        db = self._open()
        with Transaction(db):
            return [each for each in alerts if each.is_first(db, now_s)]

    def close(self) -> None:
        """Calling it twice is fine."""
        db, self._db = self._db, None
        if db is not None:
            db.close()

    def _open(self) -> sqlite3.Connection:
        if self._db is not None and not self._is_in_place():
            self.close()
        if self._db is None:
            self._db = open_ledger(self._path, busy_timeout_s=_BUSY_TIMEOUT_S)
            # A power cut must not bring back what was given back.
            self._db.execute("PRAGMA synchronous = FULL")
            self._inode = self._path.stat().st_ino
        return self._db

    def _is_in_place(self) -> bool:
        try:
            return self._path.stat().st_ino == self._inode
        except OSError:
            return False

    def _name(self, db: sqlite3.Connection) -> str:
        row = db.execute("SELECT value FROM meta WHERE name = ?", (_NAME,)).fetchone()
        if row is not None:
            return str(row[0])
        name = secrets.token_hex(8)
        db.execute("INSERT INTO meta(name, value) VALUES(?, ?)", (_NAME, name))
        return name

    def _roster(self, db: sqlite3.Connection) -> tuple[str, ...]:
        rows = db.execute("SELECT host FROM fellow WHERE account = ? ORDER BY host", (self._account,))
        return tuple(host for (host,) in rows.fetchall())

    def _rows(self, db: sqlite3.Connection, since: tuple[str, str]) -> list[tuple[str, str, int, int]]:
        return db.execute(_ROWS, (self._account, *since)).fetchall()


def _used(db: sqlite3.Connection, scope: str, period: str) -> tuple[int, int]:
    """What is used of a budget, and what of that is spent."""
    where, parameters = "period = ?", [period]
    if scope != ALL_TENANTS:
        where, parameters = f"{where} AND tenant = ?", [period, scope]
    held, spent = db.execute(
        f"SELECT ifnull(sum(held_nusd), 0), ifnull(sum(spent_nusd), 0) FROM total WHERE {where}",  # noqa: S608
        parameters,
    ).fetchone()
    return held + spent, spent

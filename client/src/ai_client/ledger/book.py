"""The ledger's transactions: many reserves and endings in one commit, checked against the budgets.

Plain synchronous SQL on one connection; no event loop, no files beside the database. `ledger.py` decides when.
"""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from msgspec import Struct

from ai_client.errors import BudgetExceeded
from ai_client.ledger.alerts import Alert, AlertKey, scope_name
from ai_client.ledger.allowance import Escrow
from ai_client.ledger.budgets import Budget, BudgetPlan, Span, fits, is_allowed, shares_passed
from ai_client.ledger.late import Correction, correct
from ai_client.ledger.owner import Fate, Note
from ai_client.ledger.periods import Period
from ai_client.ledger.prices import NANO_PER_DOLLAR
from ai_client.ledger.totals import Stand, Totals, period_name
from ai_client.platform.sqlite_file import Transaction, one_int

_INSERT: Final = (
    "INSERT INTO entry(owner, fate, reserved_nusd, day, tenant, model, tagset, request_id, reserved_at)"
    " VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
# An entry ends once: what another process has booked of it stays.
_END: Final = (
    "UPDATE entry SET fate = ?, ended_at = ?, cost_nusd = ?, input_tokens = ?, output_tokens = ?,"
    " cached_input_tokens = ? WHERE id = ? AND fate IN (0, 4)"
)
_MAX_TAGSETS: Final = 1_000


class CrashPoint(StrEnum):
    """Every place where a kill leaves another state behind. Tests kill a process at each of them."""

    OWNER_UNCOMMITTED = "owner-uncommitted"
    OWNER_COMMITTED = "owner-committed"
    COMMIT_BEGUN = "commit-begun"
    COMMIT_WRITTEN = "commit-written"
    COMMIT_DONE = "commit-done"
    END_UNWRITTEN = "end-unwritten"
    END_WRITTEN = "end-written"
    RECOVERY_WRITTEN = "recovery-written"
    RECOVERY_DONE = "recovery-done"
    PRUNE_WRITTEN = "prune-written"
    PRUNE_DONE = "prune-done"


CrashHook = Callable[[CrashPoint], None]


def survive(point: CrashPoint) -> None:
    """The hook that does nothing."""


class Ask(Struct, frozen=True):
    """A reserve that is asked for."""

    request_id: str
    model: str
    tenant: str
    tags: str
    reserve_nusd: int


class Ending(Struct, frozen=True):
    """How an entry ended, and what is booked for it."""

    entry: int
    day: str
    tenant: str
    reserved_nusd: int
    fate: Fate
    cost_nusd: int
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    #: Where its flight notes were; free once this is committed.
    slot: int | None = None

    def as_note(self) -> Note:
        """The same for the owner's file."""
        return Note(
            self.entry,
            self.fate,
            self.cost_nusd,
            self.input_tokens,
            self.output_tokens,
            self.cached_input_tokens,
        )


class Granted(Struct, frozen=True):
    """An entry was made. Without a slot its ending is written down by its commit alone."""

    entry: int
    slot: int | None


@dataclass(frozen=True, slots=True)
class ReserveRefusal:
    """The first budget that a reserve does not fit, and what of it was held or spent."""

    budget: Budget
    used_nusd: int
    #: What this host may use of it, where hosts share it and that is what it did not fit.
    allowed_nusd: int | None = None


@dataclass(frozen=True, slots=True)
class Committed:
    """One commit: what became of each ask, in order."""

    outcomes: tuple[Granted | ReserveRefusal, ...]
    alerts: tuple[Alert, ...]


class _EndedElsewhereError(Exception):
    """Of several entries that were to end, some had ended already."""


def book_ending(db: sqlite3.Connection, totals: Totals, ending: Ending, now_s: float) -> None:
    """Ends an entry and moves its amount from held to spent, unless it has ended already."""
    if db.execute(_END, _ending_row(ending, now_s)).rowcount == 1:
        _move(totals, ending)


def _book_endings(db: sqlite3.Connection, totals: Totals, endings: Sequence[Ending], now_s: float) -> None:
    """The same for several, in one call. Raises _EndedElsewhereError, and then nothing of it may be committed."""
    changed = db.executemany(_END, [_ending_row(ending, now_s) for ending in endings])
    if changed.rowcount != len(endings):
        raise _EndedElsewhereError
    for ending in endings:
        _move(totals, ending)


def _ending_row(ending: Ending, now_s: float) -> tuple[float, ...]:
    return (
        ending.fate,
        now_s,
        ending.cost_nusd,
        ending.input_tokens,
        ending.output_tokens,
        ending.cached_input_tokens,
        ending.entry,
    )


def _move(totals: Totals, ending: Ending) -> None:
    stand = totals.stand(ending.day, ending.tenant)
    stand.add(held_nusd=-ending.reserved_nusd, spent_nusd=ending.cost_nusd)


class Book:
    """Commits for one owner. Raises `sqlite3.Error`, and then nothing of that commit has happened."""

    def __init__(
        self, db: sqlite3.Connection, *, owner: int, plan: BudgetPlan, crash_hook: CrashHook
    ) -> None:
        self._db = db
        self._owner = owner
        self._plan = plan
        self._crash_hook = crash_hook
        self._totals = Totals(db, plan)
        self._tagsets: dict[str, int] = {}
        self._told: set[AlertKey] = set()

    def commit(
        self,
        *,
        endings: Sequence[Ending],
        asks: Sequence[tuple[Ask, int | None]],
        period: Period,
        now_s: float,
    ) -> Committed:
        """Books the endings, then grants or refuses each ask (with its slot) in turn, in one transaction."""
        try:
            return self._commit(endings, asks, period, now_s=now_s, one_by_one=len(endings) == 1)
        except _EndedElsewhereError:
            # Another process took this one for dead, and has booked some of them. Which, each has to be asked.
            return self._commit(endings, asks, period, now_s=now_s, one_by_one=True)

    def _commit(
        self,
        endings: Sequence[Ending],
        asks: Sequence[tuple[Ask, int | None]],
        period: Period,
        *,
        now_s: float,
        one_by_one: bool,
    ) -> Committed:
        try:
            with Transaction(self._db):
                self._crash_hook(CrashPoint.COMMIT_BEGUN)
                self._totals.begin()
                if one_by_one:
                    for ending in endings:
                        book_ending(self._db, self._totals, ending, now_s)
                elif endings:
                    _book_endings(self._db, self._totals, endings, now_s)
                outcomes = self._grant(asks, period, now_s)
                alerts = self._alerts(endings, now_s) if endings else ()
                self._totals.finish()
                self._crash_hook(CrashPoint.COMMIT_WRITTEN)
        except BaseException:
            self._totals.forget()
            self._tagsets.clear()
            raise
        if alerts:
            self._told.update(alert.key for alert in alerts)
        self._crash_hook(CrashPoint.COMMIT_DONE)
        return Committed(outcomes, alerts)

    def correct(self, corrections: Iterable[Correction]) -> None:
        """Books what calls cost whose whole reserve was booked, in one transaction."""
        try:
            with Transaction(self._db):
                self._totals.begin()
                correct(self._db, self._totals, corrections)
                self._totals.finish()
        except BaseException:
            self._totals.forget()
            raise

    def forget(self) -> None:
        """To be called after changes of the totals that were not made here."""
        self._totals.forget()

    def raise_low_entry(self, entry: int) -> None:
        """No entry of this owner below `entry` is open any more: recovery needs to look from there only."""
        self._db.execute("UPDATE owner SET low_entry = ? WHERE id = ?", (entry, self._owner))

    def _grant(
        self, asks: Sequence[tuple[Ask, int | None]], period: Period, now_s: float
    ) -> tuple[Granted | ReserveRefusal, ...]:
        refusals: dict[int, ReserveRefusal] = {}
        rows = []
        for position, (ask, _) in enumerate(asks):
            stand = self._totals.stand(period.day, ask.tenant)
            refusal = _refusal(stand, ask) if self._plan.hard_stop else None
            if refusal is not None:
                refusals[position] = refusal
                continue
            stand.add(held_nusd=ask.reserve_nusd, spent_nusd=0)
            rows.append(
                (
                    self._owner,
                    Fate.SENT,
                    ask.reserve_nusd,
                    period.day,
                    ask.tenant,
                    ask.model,
                    self._tagset(ask.tags),
                    ask.request_id,
                    now_s,
                )
            )
        entries = iter(self._insert(rows))
        return tuple(
            refusals[position] if position in refusals else Granted(next(entries), slot)
            for position, (_, slot) in enumerate(asks)
        )

    def _insert(self, rows: Sequence[tuple[object, ...]]) -> range:
        """The new entries' numbers. Nobody else writes meanwhile, so they follow each other."""
        if len(rows) == 1:
            last = self._db.execute(_INSERT, rows[0]).lastrowid or 0  # a table with row ids always has one
        elif rows:
            self._db.executemany(_INSERT, rows)
            last = one_int(self._db, "SELECT last_insert_rowid()")
        else:
            last = 0
        return range(last - len(rows) + 1, last + 1)

    def _tagset(self, tags: str) -> int:
        known = self._tagsets.get(tags)
        if known is None:
            self._db.execute("INSERT OR IGNORE INTO tagset(tags) VALUES(?)", (tags,))
            if len(self._tagsets) >= _MAX_TAGSETS:
                self._tagsets.clear()
            known = one_int(self._db, "SELECT id FROM tagset WHERE tags = ?", (tags,))
            self._tagsets[tags] = known
        return known

    def _alerts(self, endings: Sequence[Ending], now_s: float) -> tuple[Alert, ...]:
        alerts = []
        for day, tenant in {(ending.day, ending.tenant) for ending in endings}:
            for budget, amount in self._totals.stand(day, tenant).checks:
                if amount.allowed_nusd is not None:
                    continue  # of a budget that hosts share, one of them tells what all have spent
                for share in shares_passed(budget, amount, self._plan.alert_shares):
                    alert = Alert(budget, period_name(budget, day), amount.spent_nusd, share)
                    if alert.key not in self._told and alert.is_first(self._db, now_s):
                        alerts.append(alert)
        return tuple(alerts)


def _refusal(stand: Stand, ask: Ask) -> ReserveRefusal | None:
    for budget, amount in stand.checks:
        if not fits(budget, amount, ask.reserve_nusd):
            return ReserveRefusal(budget, amount.held_nusd + amount.spent_nusd)
        if amount.allowed_nusd is not None and not is_allowed(amount, ask.reserve_nusd):
            return ReserveRefusal(budget, amount.held_nusd + amount.spent_nusd, amount.allowed_nusd)
    return None


def as_error(refusal: ReserveRefusal, ask: Ask, period: Period, escrow: Escrow) -> BudgetExceeded:
    """What the caller of a refused reserve gets; whoever keeps the allowance is to know what was wanted."""
    budget = refusal.budget
    if refusal.allowed_nusd is not None:
        escrow.note_refusal((budget.scope, period_name(budget, period.day)), ask.reserve_nusd)
    return BudgetExceeded(
        f"tenant {ask.tenant!r}",
        scope=scope_name(budget.scope),
        period=budget.span,
        limit_usd=budget.limit_nusd / NANO_PER_DOLLAR,
        spent_usd=refusal.used_nusd / NANO_PER_DOLLAR,
        asked_usd=ask.reserve_nusd / NANO_PER_DOLLAR,
        resets_at=period.day_ends_at_s if budget.span is Span.DAY else period.month_ends_at_s,
        allowed_usd=None if refusal.allowed_nusd is None else refusal.allowed_nusd / NANO_PER_DOLLAR,
        trouble=escrow.trouble,
    )

"""What becomes of entries whose process is gone: decided from what it wrote down, booked once.

Never to the account's disadvantage: what may have reached the upstream is booked as billed-unknown with its whole
reserve; only what surely was not sent, or was refused unbilled, is given back.
"""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ai_client.ledger.book import CrashHook, CrashPoint, Ending, book_ending
from ai_client.ledger.budgets import BudgetPlan
from ai_client.ledger.owner import Fate, Note, is_alive, is_same_boot, lock_owner, notes_path, read_notes
from ai_client.ledger.totals import Totals
from ai_client.platform.sqlite_file import Transaction


@dataclass(frozen=True, slots=True)
class OpenEntry:
    """A row that its owner has not ended."""

    entry: int
    fate: Fate
    reserved_nusd: int
    day: str
    tenant: str


@dataclass(frozen=True, slots=True)
class Recovered:
    """How many entries of dead owners were booked as what."""

    settled: int = 0
    released: int = 0
    billed_unknown: int = 0


def verdict(row: OpenEntry, note: Note | None, *, trusts_notes: bool) -> Ending:
    """How an entry of a dead owner ends. Notes are trusted if they are whole and of this start of the machine."""
    if trusts_notes and note is not None and note.fate in (Fate.SETTLED, Fate.RELEASED):
        return Ending(
            entry=row.entry,
            day=row.day,
            tenant=row.tenant,
            reserved_nusd=row.reserved_nusd,
            fate=note.fate,
            cost_nusd=note.cost_nusd,
            input_tokens=note.input_tokens,
            output_tokens=note.output_tokens,
            cached_input_tokens=note.cached_input_tokens,
        )
    return Ending(
        entry=row.entry,
        day=row.day,
        tenant=row.tenant,
        reserved_nusd=row.reserved_nusd,
        fate=Fate.BILLED_UNKNOWN,
        cost_nusd=row.reserved_nusd,
    )


def register_owner(
    db: sqlite3.Connection, *, locks: int, pid: int, booted_at_s: float, now_s: float, crash_hook: CrashHook
) -> int:
    """Makes this process an owner; its lock is held before anybody can see its row."""
    with Transaction(db):
        row = db.execute(
            "INSERT INTO owner(pid, booted_at, started_at, low_entry)"
            " VALUES(?, ?, ?, (SELECT ifnull(max(id), 0) + 1 FROM entry))",
            (pid, booted_at_s, now_s),
        )
        owner = row.lastrowid or 0
        lock_owner(locks, owner)
        crash_hook(CrashPoint.OWNER_UNCOMMITTED)
    crash_hook(CrashPoint.OWNER_COMMITTED)
    return owner


def recover(
    db: sqlite3.Connection,
    *,
    ledger: Path,
    locks: int,
    own: int,
    booted_at_s: float,
    now_s: float,
    crash_hook: CrashHook,
) -> Recovered:
    """Ends the entries of every owner that is gone and forgets it. May be killed and run again at any point."""
    if not _dead_owners(db, locks, own):
        return Recovered()
    endings: list[Ending] = []
    with Transaction(db):
        dead = _dead_owners(db, locks, own)
        totals = Totals(db, BudgetPlan())
        totals.begin()
        for owner, owner_booted_at_s, low_entry in dead:
            notes = read_notes(notes_path(ledger, owner))
            is_trusted = notes is not None and is_same_boot(owner_booted_at_s, booted_at_s)
            for row in _open_entries(db, owner, low_entry):
                note = notes.get(row.entry) if notes is not None else None
                endings.append(verdict(row, note, trusts_notes=is_trusted))
            db.execute("DELETE FROM owner WHERE id = ?", (owner,))
        for ending in endings:
            book_ending(db, totals, ending, now_s)
        totals.finish()
        crash_hook(CrashPoint.RECOVERY_WRITTEN)
    crash_hook(CrashPoint.RECOVERY_DONE)
    for owner, _, _ in dead:
        notes_path(ledger, owner).unlink(missing_ok=True)
    return _count(endings)


def sweep_notes(db: sqlite3.Connection, *, ledger: Path, locks: int, own: int) -> None:
    """Deletes notes whose owner has no row: a recovery was killed between its commit and its deletions."""
    rows = {owner for (owner,) in db.execute("SELECT id FROM owner").fetchall()}
    for path in ledger.parent.glob(f"{ledger.stem}-*.flight"):
        number = path.stem.rpartition("-")[2]
        if number.isdecimal() and int(number) not in rows | {own} and not is_alive(locks, int(number)):
            path.unlink(missing_ok=True)


def _dead_owners(db: sqlite3.Connection, locks: int, own: int) -> list[tuple[int, float, int]]:
    rows = db.execute("SELECT id, booted_at, low_entry FROM owner WHERE id <> ?", (own,)).fetchall()
    return [row for row in rows if not is_alive(locks, row[0])]


def _open_entries(db: sqlite3.Connection, owner: int, low_entry: int) -> list[OpenEntry]:
    rows = db.execute(
        "SELECT id, fate, reserved_nusd, day, tenant FROM entry WHERE id >= ? AND owner = ? AND fate IN (0, 4)",
        (low_entry, owner),
    ).fetchall()
    return [OpenEntry(entry, Fate(fate), nusd, day, tenant) for entry, fate, nusd, day, tenant in rows]


def _count(endings: Iterable[Ending]) -> Recovered:
    fates = [ending.fate for ending in endings]
    return Recovered(
        settled=fates.count(Fate.SETTLED),
        released=fates.count(Fate.RELEASED),
        billed_unknown=fates.count(Fate.BILLED_UNKNOWN),
    )

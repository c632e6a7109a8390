"""The ledger's file: its layout, and the rule that lets two releases use one file.

A migration only adds: tables, indexes, columns that may be null or have a default. So the release before still reads
and writes a file that this one has migrated, which a roll-back needs; and statements name their columns, never `*`.
Where that can't be kept one day, `min_reader` in `meta` says which release is needed, and older ones refuse.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ai_client.platform.sqlite_file import CheckedConnection, Transaction, make_file, one_int, use_wal

# Each transaction writes the pages it touched to the WAL: small pages cost less.
PAGE_BYTES: Final = 1_024
# What one entry holds at most, so that a day's sum stays within 64 bits: a million dollars.
MOST_NUSD: Final = 10**15
MOST_TOKENS: Final = 10**15
# How long another process may take to make or migrate the file.
_MAKING_S: Final = 5.0

#: Statement lists, oldest first; a file's `user_version` is how many it has had.
MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        "CREATE TABLE meta(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
        "INSERT INTO meta(name, value) VALUES('min_reader', '1')",
        # AUTOINCREMENT: an owner's number is also its lock and its notes' name, so none is used twice.
        """CREATE TABLE owner(
            id INTEGER PRIMARY KEY AUTOINCREMENT, pid INTEGER NOT NULL, booted_at REAL NOT NULL,
            started_at REAL NOT NULL, low_entry INTEGER NOT NULL)""",
        "CREATE TABLE tagset(id INTEGER PRIMARY KEY, tags TEXT NOT NULL UNIQUE)",
        # What recovery looks for comes first: columns before it need not be decoded.
        """CREATE TABLE entry(
            id INTEGER PRIMARY KEY, owner INTEGER NOT NULL, fate INTEGER NOT NULL, reserved_nusd INTEGER NOT NULL,
            day TEXT NOT NULL, tenant TEXT NOT NULL, model TEXT NOT NULL, tagset INTEGER NOT NULL,
            request_id TEXT NOT NULL, reserved_at REAL NOT NULL, ended_at REAL,
            cost_nusd INTEGER NOT NULL DEFAULT 0, input_tokens INTEGER NOT NULL DEFAULT 0,
            output_tokens INTEGER NOT NULL DEFAULT 0, cached_input_tokens INTEGER NOT NULL DEFAULT 0)""",
        # `period` is a day (2026-11-24) or a month (2026-11).
        """CREATE TABLE total(
            period TEXT NOT NULL, tenant TEXT NOT NULL, held_nusd INTEGER NOT NULL, spent_nusd INTEGER NOT NULL,
            PRIMARY KEY(period, tenant)) WITHOUT ROWID""",
        """CREATE TABLE alert(
            period TEXT NOT NULL, scope TEXT NOT NULL, limit_nusd INTEGER NOT NULL, share REAL NOT NULL,
            told_at REAL NOT NULL, PRIMARY KEY(period, scope, limit_nusd, share)) WITHOUT ROWID""",
        """CREATE TABLE usage_day(
            day TEXT NOT NULL, tenant TEXT NOT NULL, model TEXT NOT NULL, tagset INTEGER NOT NULL,
            requests INTEGER NOT NULL, unknown_requests INTEGER NOT NULL, input_tokens INTEGER NOT NULL,
            output_tokens INTEGER NOT NULL, cached_input_tokens INTEGER NOT NULL, cost_nusd INTEGER NOT NULL,
            unknown_nusd INTEGER NOT NULL, PRIMARY KEY(day, tenant, model, tagset)) WITHOUT ROWID""",
    ),
    # Of budgets that hosts of `account` share: what this one was granted and gave back, and the hosts that it knows.
    (
        """CREATE TABLE allowance(
            account TEXT NOT NULL, period TEXT NOT NULL, scope TEXT NOT NULL, granted_nusd INTEGER NOT NULL,
            returned_nusd INTEGER NOT NULL, PRIMARY KEY(account, period, scope)) WITHOUT ROWID""",
        "CREATE TABLE fellow(account TEXT NOT NULL, host TEXT NOT NULL, PRIMARY KEY(account, host)) WITHOUT ROWID",
    ),
)


class LedgerTooNewError(Exception):
    """The file was written by a release whose layout this one can't read."""

    def __init__(self, path: Path, *, needed: int, known: int) -> None:
        super().__init__(
            f"ledger {path}: its layout needs reader {needed}, this release knows {known};"
            " install the release that wrote it, or a newer one"
        )
        self.needed = needed
        self.known = known


def open_ledger(
    path: Path, *, busy_timeout_s: float, migrations: Sequence[Sequence[str]] = MIGRATIONS
) -> sqlite3.Connection:
    """Opens the file, and makes or migrates it where needed. Raises OSError, `sqlite3.Error`, LedgerTooNewError.

    The connection is in autocommit mode and may go from one thread to another, one at a time. It never checkpoints
    by itself: that costs an fsync, which has no place on an event loop.
    """
    make_file(path)
    db = sqlite3.connect(
        path, timeout=_MAKING_S, isolation_level=None, check_same_thread=False, factory=CheckedConnection
    )
    try:
        _prepare(db, path, migrations)
        db.execute(f"PRAGMA busy_timeout = {round(busy_timeout_s * 1_000)}")
    except (sqlite3.Error, LedgerTooNewError):
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection, path: Path, migrations: Sequence[Sequence[str]]) -> None:
    if one_int(db, "PRAGMA user_version") < len(migrations):
        db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        use_wal(db, patience_s=_MAKING_S)
        with Transaction(db):
            done = one_int(db, "PRAGMA user_version")  # another process may have been first
            for statements in migrations[done:]:
                for statement in statements:
                    db.execute(statement)
            db.execute(f"PRAGMA user_version = {max(done, len(migrations))}")
    needed = one_int(db, "SELECT value FROM meta WHERE name = 'min_reader'")
    if needed > len(migrations):
        raise LedgerTooNewError(path, needed=needed, known=len(migrations))
    # NORMAL: a commit is in the page cache, safe from the death of the process; docs/adr/0012-ledger-durability.md.
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute("PRAGMA wal_autocheckpoint = 0")
    db.execute("PRAGMA journal_size_limit = 16777216")

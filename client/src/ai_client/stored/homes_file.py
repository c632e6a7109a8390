"""The homes of stored things in a SQLite file, so that a restart forgets none.

A process of the service and its successor write it beside each other. Where the file fails, what was made since is
remembered in memory: a response is then still found by this process.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Final

from ai_client.contract.events import EventStream, StoreDegraded
from ai_client.contract.stores import Home
from ai_client.platform.clock import Clock
from ai_client.platform.sqlite_file import CheckedConnection, Transaction, is_corrupt, make_file, use_wal

#: OpenAI keeps responses for 30 days, and files until they are deleted: whoever asks later asks the default upstream.
KEPT_S: Final = 400 * 86_400.0
MOST_ROWS: Final = 1_000_000
_SWEEP_EVERY: Final = 10_000
_MOST_REMEMBERED: Final = 10_000
_PATIENCE_S: Final = 0.2
#: A ledger's entry can be corrected for 35 days.
_BOOKING_KEPT_S: Final = 40 * 86_400.0
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS home (
    stored_id TEXT PRIMARY KEY, upstream TEXT NOT NULL, key TEXT NOT NULL, tenant TEXT NOT NULL, at_s REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS booking (
    stored_id TEXT PRIMARY KEY, entry INTEGER NOT NULL, request_id TEXT NOT NULL, model TEXT NOT NULL,
    at_s REAL NOT NULL
) WITHOUT ROWID
"""
_FORGET_BOOKING: Final = "DELETE FROM booking WHERE stored_id = ?"
_FIND: Final = (
    "SELECT upstream, key, tenant, entry, request_id, model FROM home LEFT JOIN booking USING (stored_id)"
    " WHERE stored_id = ?"
)


class HomesFile:
    """A `contract.stores.Homes`."""

    def __init__(self, path: Path, *, clock: Clock, events: EventStream) -> None:
        self._path = path
        self._clock = clock
        self._events = events
        self._remembered: OrderedDict[str, Home] = OrderedDict()
        self._noted = 0
        self._db = self._open()

    def note(self, stored_id: str, home: Home) -> None:
        """Durable when it returns, unless the file fails."""
        now_s = self._clock.wall()
        row = (stored_id, home.upstream, home.key_fingerprint, home.tenant, now_s)
        booking = (stored_id, home.entry, home.request_id, home.model, now_s)
        is_written = self._write("INSERT OR REPLACE INTO home VALUES (?, ?, ?, ?, ?)", row)
        if is_written and home.entry > 0:
            is_written = self._write("INSERT OR REPLACE INTO booking VALUES (?, ?, ?, ?, ?)", booking)
        elif is_written:
            self._write(_FORGET_BOOKING, (stored_id,))
        if not is_written:
            self._remembered[stored_id] = home
            while len(self._remembered) > _MOST_REMEMBERED:
                self._remembered.popitem(last=False)
        self._noted += 1
        if self._noted % _SWEEP_EVERY == 1:
            self._sweep()

    def find(self, stored_id: str) -> Home | None:
        """None where it was never noted, or too long ago."""
        remembered = self._remembered.get(stored_id)
        if remembered is not None or self._db is None:
            return remembered
        try:
            row = self._db.execute(_FIND, (stored_id,)).fetchone()
        except sqlite3.Error as error:
            self._tell(error)
            return None
        if row is None:
            return None
        return Home(
            upstream=row[0],
            key_fingerprint=row[1],
            tenant=row[2],
            entry=row[3] or 0,
            request_id=row[4] or "",
            model=row[5] or "",
        )

    def forget(self, stored_id: str) -> None:
        """It is gone."""
        self._remembered.pop(stored_id, None)
        self._write("DELETE FROM home WHERE stored_id = ?", (stored_id,))
        self._write(_FORGET_BOOKING, (stored_id,))

    def close(self) -> None:
        """Calling it twice is fine."""
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _sweep(self) -> None:
        self._write("DELETE FROM home WHERE at_s < ?", (self._clock.wall() - KEPT_S,))
        self._write("DELETE FROM booking WHERE at_s < ?", (self._clock.wall() - _BOOKING_KEPT_S,))
        oldest = "SELECT stored_id FROM home ORDER BY at_s DESC LIMIT -1 OFFSET ?"
        self._write(f"DELETE FROM home WHERE stored_id IN ({oldest})", (MOST_ROWS,))  # noqa: S608 - a constant

    def _write(self, statement: str, values: tuple[object, ...]) -> bool:
        if self._db is None:
            return False
        try:
            with Transaction(self._db):
                self._db.execute(statement, values)
        except sqlite3.Error as error:
            self._tell(error)
            return False
        return True

    def _open(self) -> sqlite3.Connection | None:
        """A file that is damaged is put aside once, and a new one begun."""
        for attempt in (1, 2):
            try:
                return self._opened()
            except (OSError, sqlite3.Error) as error:
                self._tell(error)
                if attempt == 2 or not (isinstance(error, sqlite3.Error) and is_corrupt(error)):
                    return None
                with suppress(OSError):
                    self._path.replace(self._path.with_suffix(".damaged"))
        return None

    def _opened(self) -> sqlite3.Connection:
        make_file(self._path)
        db = sqlite3.connect(self._path, timeout=_PATIENCE_S, isolation_level=None, factory=CheckedConnection)
        try:
            use_wal(db, patience_s=_PATIENCE_S)
            db.executescript(_SCHEMA)
        except sqlite3.Error:
            db.close()
            raise
        return db

    def _tell(self, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"
        self._events.emit(StoreDegraded(at=self._clock.wall(), store="homes", reason=reason))

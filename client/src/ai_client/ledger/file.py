"""One process's hold on the ledger's file: its owner row and lock, its flight notes, its book, its upkeep."""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ai_client.ledger.book import Ask, Book, Committed, CrashHook, Ending, Granted
from ai_client.ledger.budgets import BudgetPlan
from ai_client.ledger.late import Correction
from ai_client.ledger.owner import FlightNotes, Note, booted_at_s, notes_path, open_locks
from ai_client.ledger.periods import Period
from ai_client.ledger.recovery import Recovered, recover, register_owner, sweep_notes
from ai_client.ledger.schema import open_ledger
from ai_client.ledger.upkeep import Upkeep
from ai_client.platform.clock import Clock

_START_TIMEOUT_S: Final = 10.0
_LOW_ENTRY_EVERY: Final = 1_000


class LedgerFile:
    """Open from its construction to `close`. For one thread; raises `sqlite3.Error` where the file fails."""

    def __init__(self, path: Path, *, plan: BudgetPlan, clock: Clock, crash_hook: CrashHook) -> None:
        """Opens the file, becomes an owner, and books what dead owners left. Raises as `open_ledger` does."""
        self._path = path
        self._clock = clock
        self._crash_hook = crash_hook
        self._booted_at_s = booted_at_s()
        self._db = open_ledger(path, busy_timeout_s=_START_TIMEOUT_S)
        self._inode = path.stat().st_ino
        self._locks = -1
        self._notes: FlightNotes | None = None
        try:
            self._locks = open_locks(path)
            self._owner = register_owner(
                self._db,
                locks=self._locks,
                pid=os.getpid(),
                booted_at_s=self._booted_at_s,
                now_s=clock.wall(),
                crash_hook=crash_hook,
            )
            self._notes = FlightNotes(notes_path(path, self._owner))
            self._book = Book(self._db, owner=self._owner, plan=plan, crash_hook=crash_hook)
            self.recover()
            sweep_notes(self._db, ledger=path, locks=self._locks, own=self._owner)
            # From here on the event loop calls: it must not wait for a lock, but come back later.
            self._db.execute("PRAGMA busy_timeout = 0")
        except (OSError, sqlite3.Error):
            self._close_files()
            raise
        self._upkeep = Upkeep(path, clock=clock, crash_hook=crash_hook)
        self._last_entry = self._next_low_entry = 0

    def commit(
        self, *, endings: Sequence[Ending], asks: Sequence[Ask], period: Period, now_s: float
    ) -> Committed:
        """As `Book.commit`, with a slot for each ask while there are any."""
        notes = self._open_notes()
        slots = [notes.take_slot() for _ in asks]
        unused = set(slots)
        try:
            committed = self._book.commit(
                endings=endings, asks=list(zip(asks, slots, strict=True)), period=period, now_s=now_s
            )
            for outcome in committed.outcomes:
                if isinstance(outcome, Granted):
                    unused.discard(outcome.slot)
                    self._last_entry = outcome.entry
            unused.update(ending.slot for ending in endings)
        finally:
            for slot in unused:
                if slot is not None:
                    notes.give_slot(slot)
        return committed

    def correct(self, corrections: Iterable[Correction]) -> None:
        """As `Book.correct`."""
        self._book.correct(corrections)

    def note(self, slot: int, note: Note) -> None:
        """Writes a flight note. Raises OSError where the disk fails."""
        self._open_notes().write(slot, note)

    def recover(self) -> Recovered:
        """Books what dead owners left."""
        recovered = recover(
            self._db,
            ledger=self._path,
            locks=self._locks,
            own=self._owner,
            booted_at_s=self._booted_at_s,
            now_s=self._clock.wall(),
            crash_hook=self._crash_hook,
        )
        # SQLite tells a connection what others have changed, not what it has changed itself.
        self._book.forget()
        return recovered

    @contextmanager
    def patience(self) -> Iterator[None]:
        """Within it, a lock that is held is waited for: not on an event loop that has other work."""
        self._db.execute(f"PRAGMA busy_timeout = {round(_START_TIMEOUT_S * 1_000)}")
        try:
            yield
        finally:
            # The file may have been closed within.
            if self._notes is not None:
                self._db.execute("PRAGMA busy_timeout = 0")

    def look_after(self, *, lowest_open: int | None) -> bool:
        """Upkeep that is due, the long part of it in a thread. `lowest_open` is the oldest entry in flight.

        False where the file was deleted or replaced: what is booked from now on would be lost with it.
        """
        low = self._last_entry + 1 if lowest_open is None else lowest_open
        if low >= self._next_low_entry:
            self._next_low_entry = low + _LOW_ENTRY_EVERY
            self._book.raise_low_entry(low)
        return not self._upkeep.run_if_due() or self._is_in_place()

    def close(self, *, keep_notes: bool) -> None:
        """Closes everything; with `keep_notes` the entries still open are left to another start's recovery."""
        self._upkeep.close()
        if not keep_notes:
            try:
                with self.patience():
                    self._db.execute("DELETE FROM owner WHERE id = ?", (self._owner,))
            except sqlite3.Error:
                keep_notes = True  # recovery finds nothing open, and deletes both
        self._close_files(keep_notes=keep_notes)

    def _is_in_place(self) -> bool:
        try:
            return self._path.stat().st_ino == self._inode
        except OSError:
            return False

    def _open_notes(self) -> FlightNotes:
        if self._notes is None:
            raise ValueError("the ledger's file is closed")
        return self._notes

    def _close_files(self, *, keep_notes: bool = False) -> None:
        self._db.close()
        if self._notes is not None:
            self._notes.close(keep=keep_notes)
            self._notes = None
        if self._locks >= 0:
            os.close(self._locks)
            self._locks = -1

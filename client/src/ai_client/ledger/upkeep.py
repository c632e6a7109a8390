"""What keeps the ledger's file small and synced, in a thread: checkpoints, and old entries summed up by day."""

import sqlite3
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from ai_client.ledger.book import CrashHook, CrashPoint
from ai_client.ledger.schema import LedgerTooNewError, open_ledger
from ai_client.platform.clock import Clock
from ai_client.platform.sqlite_file import Transaction

KEEP_ENTRIES_S: Final = 35 * 86_400.0
KEEP_DAYS_S: Final = 800 * 86_400.0
_CHECKPOINT_EVERY_S: Final = 1.0
_PRUNE_EVERY_S: Final = 3_600.0
# Frames of 1 KiB in the WAL from which on it is begun anew, with writers held off meanwhile.
_RESTART_FRAMES: Final = 32_768
_RESTART_WAIT_MS: Final = 50
_BUSY_TIMEOUT_S: Final = 2.0
# Bounds how long the write lock is held, some milliseconds.
_PRUNE_AT_ONCE: Final = 1_000

_OLDEST: Final = "SELECT id, fate, ended_at FROM entry ORDER BY id LIMIT ?"
_SUM_UP: Final = """
INSERT INTO usage_day(day, tenant, model, tagset, requests, unknown_requests, input_tokens, output_tokens,
    cached_input_tokens, cost_nusd, unknown_nusd)
SELECT day, tenant, model, tagset, 1, fate = 3, input_tokens, output_tokens, cached_input_tokens, cost_nusd,
    CASE fate WHEN 3 THEN cost_nusd ELSE 0 END
FROM entry WHERE id = ? AND fate IN (1, 3)
ON CONFLICT DO UPDATE SET requests = requests + 1, unknown_requests = unknown_requests + excluded.unknown_requests,
    input_tokens = input_tokens + excluded.input_tokens, output_tokens = output_tokens + excluded.output_tokens,
    cached_input_tokens = cached_input_tokens + excluded.cached_input_tokens,
    cost_nusd = cost_nusd + excluded.cost_nusd, unknown_nusd = unknown_nusd + excluded.unknown_nusd
"""


class Upkeep:
    """Runs in a thread of its own when asked and due; never raises for a busy or full file, but tries later."""

    def __init__(self, path: Path, *, clock: Clock, crash_hook: CrashHook) -> None:
        self._path = path
        self._clock = clock
        self._crash_hook = crash_hook
        self._executor: ThreadPoolExecutor | None = None
        self._running: Future[None] | None = None
        self._ran_at_s = clock.monotonic()
        self._pruned_at_s: float | None = None

    def run_if_due(self) -> bool:
        """Starts a round unless one is running or the last one is too recent; whether it did."""
        now_s = self._clock.monotonic()
        if now_s - self._ran_at_s < _CHECKPOINT_EVERY_S:
            return False
        if self._running is not None:
            if not self._running.done():
                return False
            self._running.result()
        self._ran_at_s = now_s
        if self._executor is None:
            self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ai-client-ledger")
        self._running = self._executor.submit(self._round)
        return True

    def close(self) -> None:
        """Waits for the round that is running."""
        if self._executor is not None:
            self._executor.shutdown(wait=True)

    def _round(self) -> None:
        try:
            db = open_ledger(self._path, busy_timeout_s=_BUSY_TIMEOUT_S)
        except (OSError, sqlite3.Error, LedgerTooNewError):
            return  # the event loop's side meets the same trouble and tells it
        try:
            now_s = self._clock.monotonic()
            if self._pruned_at_s is None or now_s - self._pruned_at_s >= _PRUNE_EVERY_S:
                prune(db, now_s=self._clock.wall(), crash_hook=self._crash_hook)
                self._pruned_at_s = now_s
            checkpoint(db)
        except sqlite3.Error:
            return
        finally:
            db.close()


def checkpoint(db: sqlite3.Connection) -> None:
    """Syncs what was committed. Where commits never pause, those that come meanwhile keep the WAL from ever being
    begun anew, and it would grow without end: so a long one is finished with the write lock held, which waits for the
    few commits since."""
    _, frames, _ = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    if frames >= _RESTART_FRAMES:
        # Nor for long, should somebody read: there is another round in a second.
        db.execute(f"PRAGMA busy_timeout = {_RESTART_WAIT_MS}")
        db.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()


def prune(db: sqlite3.Connection, *, now_s: float, crash_hook: CrashHook) -> int:
    """Sums entries older than `KEEP_ENTRIES_S` up by day, forgets days after `KEEP_DAYS_S`; returns how many.

    The newest entry always stays: row ids go on from it, and none may come back while a note may still name it.
    """
    oldest_day = datetime.fromtimestamp(now_s - KEEP_DAYS_S, UTC).date().isoformat()
    with Transaction(db):
        # A month's name sorts before its days', so months go with the first of their days.
        db.execute("DELETE FROM usage_day WHERE day < ?", (oldest_day,))
        db.execute("DELETE FROM total WHERE period < ?", (oldest_day,))
        db.execute("DELETE FROM alert WHERE period < ?", (oldest_day,))
    pruned = 0
    while True:
        with Transaction(db):
            rows = db.execute(_OLDEST, (_PRUNE_AT_ONCE + 1,)).fetchall()
            old = [
                (entry,)
                for entry, _, ended_at in rows[:-1]
                if ended_at is not None and ended_at < now_s - KEEP_ENTRIES_S
            ]
            db.executemany(_SUM_UP, old)
            db.executemany("DELETE FROM entry WHERE id = ?", old)
            crash_hook(CrashPoint.PRUNE_WRITTEN)
        crash_hook(CrashPoint.PRUNE_DONE)
        pruned += len(old)
        if len(old) < _PRUNE_AT_ONCE:
            return pruned

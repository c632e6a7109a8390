"""The response cache's SQLite file: plain statements, no policy. Every method may raise `sqlite3.Error`.

Two tables, so that marking an entry as used rewrites 40 bytes and not its answer. An answer's row id is the first
eight bytes of its key: a look-up walks one b-tree; the whole key is compared afterwards.
"""

import os
import sqlite3
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FILE_MODE: Final = 0o600
# The layout's version is a part of the name: two releases that differ in it never open each other's files.
_STEM: Final = "answers-1"
_ROW_OVERHEAD_BYTES: Final = 4_096 + 256
_CORRUPT_SQLITE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_PRIMARY_CODE_MASK: Final = 0xFF

# Run by whoever opens the file first; a second one, at the same time, finds everything there.
_SCHEMA: Final = """
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS answer(
    id INTEGER PRIMARY KEY, key BLOB NOT NULL, stored_at REAL NOT NULL, expires_at REAL NOT NULL,
    crc INTEGER NOT NULL, facts TEXT NOT NULL, body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS recency(
    id INTEGER PRIMARY KEY, used_at REAL NOT NULL, expires_at REAL NOT NULL, size INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS recency_by_use ON recency(used_at);
CREATE INDEX IF NOT EXISTS recency_by_end ON recency(expires_at);
PRAGMA user_version = 1;
COMMIT;
"""
_READ: Final = "SELECT key, stored_at, expires_at, crc, facts, body FROM answer WHERE id = ?"
_WRITE: Final = "INSERT OR REPLACE INTO answer VALUES(?, ?, ?, ?, ?, ?, ?)"
_MARK: Final = "INSERT OR REPLACE INTO recency VALUES(?, ?, ?, ?)"
_EXPIRED: Final = "SELECT id FROM recency WHERE expires_at <= ? LIMIT ?"
_OLDEST: Final = "SELECT id, size FROM recency ORDER BY used_at LIMIT ?"
_TOUCH: Final = "UPDATE recency SET used_at = ? WHERE id = ?"


class DamagedEntryError(Exception):
    """An entry whose bytes are not the ones that were stored."""


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """One answer as it lies in the file: `facts` is JSON text about the `body`. Times are of the wall clock."""

    stored_at_s: float
    expires_at_s: float
    facts: str
    body: bytes

    @property
    def size_bytes(self) -> int:
        """What it takes in the file, at most: its last page may be half empty."""
        return len(self.body) + len(self.facts) + _ROW_OVERHEAD_BYTES


def is_corrupt(error: sqlite3.Error) -> bool:
    """Whether the file itself is damaged, as opposed to busy, full or out of reach."""
    return getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE_MASK in _CORRUPT_SQLITE


def is_busy(error: sqlite3.Error) -> bool:
    """Whether somebody holds a lock just now."""
    return getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE_MASK == sqlite3.SQLITE_BUSY


def row_id(key: bytes) -> int:
    """The row that `key` has: its first eight bytes as a signed integer."""
    return int.from_bytes(key[:8], "big", signed=True)


def newest_path(directory: Path) -> Path:
    """The file in use: the one with the highest number. A damaged one is not replaced but followed by the next
    number, because SQLite finds a file's WAL by name, and a WAL that outlived its file must not meet another."""
    numbers = [_number(path) for path in directory.glob(f"{_STEM}.*.sqlite")]
    return directory / f"{_STEM}.{max(numbers, default=0) or 1}.sqlite"


def following_path(path: Path) -> Path:
    """The name of the file after `path`."""
    return path.with_name(f"{_STEM}.{_number(path) + 1}.sqlite")


def _number(path: Path) -> int:
    digits = path.name.removeprefix(f"{_STEM}.").removesuffix(".sqlite")
    return int(digits) if digits.isdecimal() else 0


def _make(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # SQLite gives its -wal and -shm the mode of the main file, so that one is made first, by us.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    try:
        os.fchmod(descriptor, FILE_MODE)
    finally:
        os.close(descriptor)


class CacheFile:
    """One connection to a file. Made and closed by whoever owns it; usable from one thread at a time."""

    def __init__(self, path: Path, *, busy_timeout_s: float, makes_file: bool) -> None:
        """Opens the file. Raises OSError and `sqlite3.Error`.

        Only the writer makes what is missing: a reader that did would wait for locks on the event loop.
        """
        if makes_file:
            _make(path)
        self.path = path
        self.inode = path.stat().st_ino
        self._db = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=busy_timeout_s,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            self.is_ready = self._prepare(makes_file=makes_file)
        except sqlite3.Error:
            self._db.close()
            raise
        self._page_bytes: int = self._db.execute("PRAGMA page_size").fetchone()[0]

    def _prepare(self, *, makes_file: bool) -> bool:
        """Whether the tables are there."""
        if self._db.execute("PRAGMA user_version").fetchone()[0] == 0:
            if not makes_file:
                return False
            self._db.executescript(_SCHEMA)
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA journal_size_limit = 16777216")
        return True

    def read(self, key: bytes) -> StoredAnswer | None:
        """The entry of `key`, whether expired or not. Raises `DamagedEntryError`."""
        row = self._db.execute(_READ, (row_id(key),)).fetchone()
        if row is None or row[0] != key:
            return None
        _, stored_at_s, expires_at_s, crc, facts, body = row
        if _checksum(facts, body) != crc:
            raise DamagedEntryError
        return StoredAnswer(stored_at_s, expires_at_s, facts, body)

    def note(self, *, touched: Mapping[int, float], forgotten: Iterable[bytes]) -> None:
        """Marks row ids as used at a time and deletes keys, all or nothing."""
        with _Transaction(self._db):
            for key in forgotten:
                self._forget(row_id(key))
            self._db.executemany(_TOUCH, [(used_at_s, row) for row, used_at_s in touched.items()])

    def write(self, answers: Iterable[tuple[bytes, StoredAnswer]]) -> None:
        """Stores answers in place of those with the same keys, all or nothing."""
        with _Transaction(self._db):
            for key, answer in answers:
                row = row_id(key)
                crc = _checksum(answer.facts, answer.body)
                times = (answer.stored_at_s, answer.expires_at_s)
                self._db.execute(_WRITE, (row, key, *times, crc, answer.facts, answer.body))
                self._db.execute(_MARK, (row, *times, answer.size_bytes))

    def used_bytes(self) -> int:
        """Bytes of the file that hold something."""
        pages: int = self._db.execute("PRAGMA page_count").fetchone()[0]
        free: int = self._db.execute("PRAGMA freelist_count").fetchone()[0]
        return (pages - free) * self._page_bytes

    def shrink(self, *, to_bytes: int, at_most_pages: int) -> None:
        """Gives free pages back to the disk where the file is larger than `to_bytes`."""
        pages: int = self._db.execute("PRAGMA page_count").fetchone()[0]
        surplus = pages - to_bytes // self._page_bytes
        if surplus > 0:
            # `execute` would take only the first of the pragma's steps, and each step frees one page.
            self._db.executescript(f"PRAGMA incremental_vacuum({min(surplus, at_most_pages)})")

    def evict_expired(self, *, now_s: float, at_most: int) -> int:
        """Deletes entries whose time is over; returns how many."""
        rows = self._db.execute(_EXPIRED, (now_s, at_most)).fetchall()
        return self._evict([row for (row,) in rows])

    def evict_oldest(self, *, bytes_: int, at_most: int) -> int:
        """Deletes entries used longest ago until about `bytes_` are free; returns how many."""
        rows = []
        for row, size in self._db.execute(_OLDEST, (at_most,)).fetchall():
            if bytes_ <= 0:
                break
            rows.append(row)
            bytes_ -= size
        return self._evict(rows)

    def count(self) -> int:
        """Entries in the file."""
        total: int = self._db.execute("SELECT count(*) FROM recency").fetchone()[0]
        return total

    def close(self) -> None:
        """Closes the connection; the last one to close also folds the WAL into the file."""
        self._db.close()

    def _evict(self, rows: list[int]) -> int:
        with _Transaction(self._db):
            for row in rows:
                self._forget(row)
        return len(rows)

    def _forget(self, row: int) -> None:
        self._db.execute("DELETE FROM answer WHERE id = ?", (row,))
        self._db.execute("DELETE FROM recency WHERE id = ?", (row,))


class _Transaction:
    """BEGIN IMMEDIATE to COMMIT, or ROLLBACK where the block raised."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self._db.execute("COMMIT")
        # A full disk makes SQLite roll back by itself; a second ROLLBACK would hide the first error.
        elif self._db.in_transaction:
            self._db.execute("ROLLBACK")


def _checksum(facts: str, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(facts.encode()))

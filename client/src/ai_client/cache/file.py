"""The response cache's SQLite file: plain statements, no policy. Every method may raise `sqlite3.Error`.

Answers are appended (`answer`, in the order of their placing); `entry` finds them by the first eight bytes of their key
and says when they were used last. Appending writes a third of a page for an answer of 1 KB where a table in key order
would write two pages, and evicting from the front frees whole pages. An answer at the front that was used since it
was placed goes to the end once more instead (second chance).

Nothing is ever synced: a sync makes all wait who write to the same file system, the event loop's ledger included.
So a power cut may damage the file; SQLite or an answer's checksum finds that, and a damaged file is set aside.
"""

import json
import sqlite3
import zlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Final, TypeAlias

from msgspec import Struct

from ai_client.platform.sqlite_file import (
    CheckedConnection,
    Transaction,
    damaged,
    make_file,
    one_int,
    use_wal,
)

# The layout's version is a part of the name: two releases that differ in it never open each other's files.
_STEM: Final = "answers-3"
_ROW_OVERHEAD_BYTES: Final = 4_096 + 256
# How long another process may take to make the file.
_MAKING_S: Final = 5.0
# When an entry was used that nobody has used yet.
_NEVER: Final = 0.0
_Row: TypeAlias = tuple[bytes, float, float, float, int, str, bytes]

# Run by whoever opens the file first; a second one, at the same time, finds everything there.
_SCHEMA: Final = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS answer(
    place INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB NOT NULL, placed_at REAL NOT NULL, stored_at REAL NOT NULL,
    expires_at REAL NOT NULL, crc INTEGER NOT NULL, facts TEXT NOT NULL, body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS entry(id INTEGER PRIMARY KEY, place INTEGER NOT NULL, used_at REAL NOT NULL);
PRAGMA user_version = 1;
COMMIT;
"""
# Two statements and not a join: most lookups end with the first one, at a third of a join's cost.
_FIND: Final = "SELECT place, used_at FROM entry WHERE id = ?"
_READ: Final = "SELECT key, stored_at, expires_at, crc, facts, body, placed_at FROM answer WHERE place = ?"
_ONE_ROW: Final = "(?, ?, ?, ?, ?, ?, ?)"
_APPEND: Final = (
    f"INSERT INTO answer(key, placed_at, stored_at, expires_at, crc, facts, body) VALUES{_ONE_ROW}"
)
_DELETE: Final = "DELETE FROM answer WHERE place = ?"
_TAKE: Final = "DELETE FROM answer WHERE place = ? RETURNING stored_at, expires_at, crc, facts, body"
_USED: Final = "SELECT used_at FROM entry WHERE id = ? AND place = ?"
_POINT: Final = "INSERT OR REPLACE INTO entry(id, place, used_at) VALUES(?, ?, ?)"
# For many at once, their row ids as a JSON array: one call that runs without the interpreter's lock, where a call for
# each would take it from the event loop again and again.
_PLACES: Final = "SELECT place FROM entry WHERE id IN (SELECT value FROM json_each(?))"
_POINT_ALL: Final = (
    "INSERT OR REPLACE INTO entry(id, place, used_at) SELECT value, ?1 + key, ?2 FROM json_each(?3)"
)
# Seven parameters each: well below the 32,766 that a statement may have.
_MANY: Final = 128
_APPEND_MANY: Final = _APPEND + f", {_ONE_ROW}" * (_MANY - 1)
_TOUCH: Final = "UPDATE entry SET used_at = ? WHERE id = ?"
_FRONT: Final = "SELECT place, key, placed_at, expires_at, length(body) FROM answer ORDER BY place LIMIT ?"


class DamagedEntryError(Exception):
    """An entry whose bytes are not the ones that were stored."""


class StoredAnswer(Struct, frozen=True):
    """One answer as it lies in the file: `facts` is JSON text about the `body`. Times are of the wall clock."""

    stored_at_s: float
    expires_at_s: float
    facts: str
    body: bytes
    #: Whether its first use since it was placed is still to be marked; more than the first changes nothing.
    is_unused: bool = True

    @property
    def size_bytes(self) -> int:
        """What it takes in the file, at most: its last page may be half empty."""
        return len(self.body) + len(self.facts) + _ROW_OVERHEAD_BYTES


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


class CacheFile:
    """One connection to a file. Made and closed by whoever owns it; usable from one thread at a time."""

    def __init__(self, path: Path, *, busy_timeout_s: float, makes_file: bool) -> None:
        """Opens the file. Raises OSError and `sqlite3.Error`.

        Only the writer makes what is missing: a reader that did would wait for locks on the event loop.
        """
        if makes_file:
            make_file(path)
        self.path = path
        self.inode = path.stat().st_ino
        self._db = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=busy_timeout_s,
            isolation_level=None,
            check_same_thread=False,
            factory=CheckedConnection,
        )
        try:
            self.is_ready = self._prepare(makes_file=makes_file)
        except sqlite3.Error:
            self._db.close()
            raise
        self._finding = self._db.cursor()
        self._page_bytes = one_int(self._db, "PRAGMA page_size")

    def _prepare(self, *, makes_file: bool) -> bool:
        """Whether the tables are there."""
        if one_int(self._db, "PRAGMA user_version") == 0:
            if not makes_file:
                return False
            self._db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            use_wal(self._db, patience_s=_MAKING_S)
            self._db.executescript(_SCHEMA)
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute("PRAGMA journal_size_limit = 16777216")
        return True

    def read(self, key: bytes) -> StoredAnswer | None:
        """The entry of `key`, whether expired or not. Raises `DamagedEntryError`."""
        try:
            found = self._finding.execute(_FIND, (row_id(key),)).fetchone()
        except UnicodeDecodeError as error:
            raise damaged(error) from error
        if found is None:
            return None
        place, used_at_s = found
        # Between the two another process may have put it elsewhere: then it is a miss, like any other.
        row = self._db.execute(_READ, (place,)).fetchone()
        if row is None or row[0] != key:
            return None
        _, stored_at_s, expires_at_s, crc, facts, body, placed_at_s = row
        if _checksum(facts, body) != crc:
            raise DamagedEntryError
        return StoredAnswer(stored_at_s, expires_at_s, facts, body, used_at_s <= placed_at_s)

    def note(self, *, touched: Mapping[int, float], forgotten: Iterable[bytes]) -> None:
        """Marks row ids as used at a time and deletes keys, all or nothing."""
        with Transaction(self._db):
            for key in forgotten:
                self._forget(row_id(key))
            self._db.executemany(_TOUCH, [(used_at_s, row) for row, used_at_s in touched.items()])

    def write(self, answers: Iterable[tuple[bytes, StoredAnswer]]) -> None:
        """Stores answers in place of those with the same keys, all or nothing."""
        # In the order of their row ids, so that neighbours in `entry` share a page while it is at hand.
        ordered = sorted((row_id(key), key, answer) for key, answer in answers)
        ids = json.dumps([row for row, _, _ in ordered])
        with Transaction(self._db):
            self._db.executemany(_DELETE, self._db.execute(_PLACES, (ids,)).fetchall())
            self._append([_as_row(key, answer) for _, key, answer in ordered])
            last = one_int(self._db, "SELECT last_insert_rowid()")
            self._db.execute(_POINT_ALL, (last - len(ordered) + 1, _NEVER, ids))

    def used_bytes(self) -> int:
        """Bytes of the file that hold something."""
        pages = one_int(self._db, "PRAGMA page_count")
        free = one_int(self._db, "PRAGMA freelist_count")
        return (pages - free) * self._page_bytes

    def shrink(self, *, to_bytes: int, at_most_pages: int) -> None:
        """Gives free pages back to the disk where the file is larger than `to_bytes`."""
        pages = one_int(self._db, "PRAGMA page_count")
        surplus = pages - to_bytes // self._page_bytes
        if surplus > 0:
            # `execute` would take only the first of the pragma's steps, and each step frees one page.
            self._db.executescript(f"PRAGMA incremental_vacuum({min(surplus, at_most_pages)})")

    def evict_expired(self, *, now_s: float, at_most: int) -> int:
        """Deletes those of the first `at_most` answers whose time is over; returns how many."""
        with Transaction(self._db):
            front = self._db.execute(_FRONT, (at_most,)).fetchall()
            expired = [(place, key) for place, key, _, expires_at_s, _ in front if expires_at_s <= now_s]
            for place, key in expired:
                self._delete(place, key)
        return len(expired)

    def evict_front(self, *, now_s: float, bytes_: int, at_most: int) -> tuple[int, int]:
        """Takes answers from the front until about `bytes_` are free: the unused go, the used go to the end.

        Returns how many it looked at, and how many it deleted; (0, 0) where there is no answer left.
        """
        seen = deleted = 0
        with Transaction(self._db):
            for place, key, placed_at_s, expires_at_s, size in self._db.execute(
                _FRONT, (at_most,)
            ).fetchall():
                if bytes_ <= 0:
                    break
                seen += 1
                used = self._db.execute(_USED, (row_id(key), place)).fetchone()
                if used is not None and used[0] > placed_at_s and expires_at_s > now_s:
                    self._place_again(place, key, now_s)
                else:
                    self._delete(place, key)
                    deleted += 1
                    bytes_ -= size
        return seen, deleted

    def count(self) -> int:
        """Entries in the file."""
        return one_int(self._db, "SELECT count(*) FROM entry")

    def close(self) -> None:
        """Closes the connection; the last one to close also folds the WAL into the file."""
        self._db.close()

    def _append(self, rows: Sequence[_Row]) -> None:
        whole = len(rows) - len(rows) % _MANY
        for start in range(0, whole, _MANY):
            self._db.execute(_APPEND_MANY, [*chain.from_iterable(rows[start : start + _MANY])])
        self._db.executemany(_APPEND, rows[whole:])

    def _forget(self, row: int) -> None:
        place = self._db.execute("SELECT place FROM entry WHERE id = ?", (row,)).fetchone()
        if place is not None:
            self._db.execute(_DELETE, place)
            self._db.execute("DELETE FROM entry WHERE id = ?", (row,))

    def _place_again(self, place: int, key: bytes, now_s: float) -> None:
        # Deleted first and written after it, so that the file does not grow for it.
        ((stored_at_s, expires_at_s, crc, facts, body),) = self._db.execute(_TAKE, (place,)).fetchall()
        row = (key, now_s, stored_at_s, expires_at_s, crc, facts, body)
        placed = self._db.execute(_APPEND, row)
        # Used as it is placed: the next time it must have been used again.
        self._db.execute(_POINT, (row_id(key), placed.lastrowid, now_s))

    def _delete(self, place: int, key: bytes) -> None:
        self._db.execute(_DELETE, (place,))
        self._db.execute("DELETE FROM entry WHERE id = ? AND place = ?", (row_id(key), place))


def _as_row(key: bytes, answer: StoredAnswer) -> _Row:
    crc = _checksum(answer.facts, answer.body)
    return (
        key,
        answer.stored_at_s,
        answer.stored_at_s,
        answer.expires_at_s,
        crc,
        answer.facts,
        answer.body,
    )


def _checksum(facts: str, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(facts.encode()))

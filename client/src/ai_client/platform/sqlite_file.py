"""What the ledger and the cache have in common: how a SQLite file is made, written to, and found at fault."""

import os
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Final

FILE_MODE: Final = 0o600
_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_PRIMARY_CODE_MASK: Final = 0xFF
_ASK_AGAIN_S: Final = 0.01


def damaged(error: UnicodeDecodeError) -> sqlite3.DatabaseError:
    """What SQLite meant to say: of a damaged file it quotes bytes in its own message that are no text."""
    return _corrupt(f"the file is damaged ({error.reason} in it)")


def _corrupt(reason: str) -> sqlite3.DatabaseError:
    found = sqlite3.DatabaseError(reason)
    found.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return found


class CheckedConnection(sqlite3.Connection):
    """Raises `sqlite3.Error` for whatever a damaged file makes of a statement."""

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """As SQLite's."""
        try:
            return super().execute(sql, parameters)
        except UnicodeDecodeError as error:
            raise damaged(error) from error

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> sqlite3.Cursor:
        """As SQLite's."""
        try:
            return super().executemany(sql, parameters)
        except UnicodeDecodeError as error:
            raise damaged(error) from error

    def executescript(self, sql_script: str, /) -> sqlite3.Cursor:
        """As SQLite's."""
        try:
            return super().executescript(sql_script)
        except UnicodeDecodeError as error:
            raise damaged(error) from error


class Transaction:
    """BEGIN IMMEDIATE to COMMIT, or ROLLBACK where the block raised: `with Transaction(db): …`."""

    __slots__ = ("_db",)

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._db.execute("COMMIT")
        # A full disk makes SQLite roll back by itself; a second ROLLBACK would hide the first error.
        elif self._db.in_transaction:
            self._db.execute("ROLLBACK")


def one_int(db: sqlite3.Connection, sql: str, parameters: Any = (), /) -> int:
    """The whole number that a statement finds. Raises `sqlite3.Error`, also where a damaged file has none there."""
    row = db.execute(sql, parameters).fetchone()
    try:
        return int(row[0])
    except (TypeError, ValueError) as error:
        raise _corrupt(f"the file is damaged (no number, for: {sql})") from error


def make_file(path: Path) -> None:
    """An empty file for its owner alone, where there is none. Raises OSError.

    SQLite gives its -wal and -shm the mode of the main file, so that one is made first, by us.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    try:
        os.fchmod(descriptor, FILE_MODE)
    finally:
        os.close(descriptor)


def use_wal(db: sqlite3.Connection, *, patience_s: float) -> None:
    """Puts the file into WAL mode. Raises `sqlite3.Error`, also where others hold it for longer than `patience_s`.

    SQLite itself does not always wait here for others who do the same: its busy timeout is no help.
    """
    end_s = time.monotonic() + patience_s
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.Error as error:
            if not is_busy(error) or time.monotonic() >= end_s:
                raise
        else:
            return
        time.sleep(_ASK_AGAIN_S)


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another connection holds a lock just now."""
    return getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE_MASK == sqlite3.SQLITE_BUSY


def is_corrupt(error: sqlite3.Error) -> bool:
    """Whether the file itself is damaged, as opposed to busy, full or out of reach."""
    return getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE_MASK in _CORRUPT

"""The disk on a bad day: full, broken, or held by another process."""

from __future__ import annotations

import errno
import os
import sqlite3
from types import TracebackType
from typing import Any

from ai_client.platform.sqlite_file import Transaction

_SQLITE = {
    "full": (sqlite3.SQLITE_FULL, "database or disk is full"),
    "broken": (sqlite3.SQLITE_IOERR, "disk I/O error"),
    "busy": (sqlite3.SQLITE_BUSY, "database is locked"),
}


class Disk:
    """What is wrong with it; "" for nothing."""

    def __init__(self) -> None:
        self.trouble = ""
        self.has_failed = False

    def check(self) -> None:
        """Raises what SQLite would."""
        if self.trouble:
            self.has_failed = True
            code, text = _SQLITE[self.trouble]
            error = sqlite3.OperationalError(text)
            error.sqlite_errorcode = code  # type: ignore[misc]
            raise error


def faulty_transaction(disk: Disk) -> type[Transaction]:
    """A transaction that begins on a sound disk and may end on none."""

    class FaultyTransaction(Transaction):
        __slots__ = ()

        def __enter__(self) -> None:
            if disk.trouble == "busy":
                disk.check()
            super().__enter__()

        def __exit__(
            self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
        ) -> None:
            if kind is None and disk.trouble:
                super().__exit__(OSError, None, None)
                disk.check()
            super().__exit__(kind, error, trace)

    return FaultyTransaction


class FaultyOs:
    """`os` for the audit trail: a full disk takes a part of what is written."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def write(self, descriptor: int, data: bytes) -> int:
        if self._disk.trouble == "full":
            return os.write(descriptor, data[: len(data) // 2])
        if self._disk.trouble == "broken":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return os.write(descriptor, data)

    def posix_fallocate(self, descriptor: int, offset: int, count: int) -> None:
        """As `os` has it."""
        if self._disk.trouble == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.posix_fallocate(descriptor, offset, count)

"""The output and errors files of a batch: appended line by line, and read again to find what is done.

A line is one write to a file opened for appending, so a kill leaves whole lines and at most one torn end, which the
next run cuts off. There is no other record: what is in the files is done, and nothing else.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from ai_client.batch.lines import INVALID_LINE, Answered, scan

READ_BYTES = 1 << 20


class OutputError(Exception):
    """An output file can't be used; the text names it, the reason and the remedy."""


class Done:
    """Which lines are done: a bit a line, so that ten million lines take little more than a megabyte."""

    def __init__(self) -> None:
        self._bits = bytearray()
        self.count = 0

    def add(self, number: int) -> bool:
        """Note a line; False where it is noted already."""
        index, mask = number >> 3, 1 << (number & 7)
        if index >= len(self._bits):
            self._bits.extend(bytes(index + 1024 - len(self._bits)))
        if self._bits[index] & mask:
            return False
        self._bits[index] |= mask
        self.count += 1
        return True

    def __contains__(self, number: int) -> bool:
        index = number >> 3
        return index < len(self._bits) and bool(self._bits[index] & 1 << (number & 7))


class LineFile:
    """One of the files. A context manager; locked against a second run while it is open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1

    def __enter__(self) -> Self:
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as exc:
            raise OutputError(f"{self.path} can't be written ({exc.strerror}); name another output") from exc
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            os.close(self._descriptor)
            remedy = "wait for it, or name another output"
            raise OutputError(f"{self.path} is being written by another run; {remedy}") from exc
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.close(self._descriptor)

    def append(self, line: bytes) -> None:
        """Append one line, whole or not at all. Raises OSError, which names the file."""
        before = os.fstat(self._descriptor).st_size
        try:
            written = os.write(self._descriptor, line)
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
        except OSError as exc:
            os.ftruncate(self._descriptor, before)
            raise OSError(exc.errno, exc.strerror, str(self.path)) from exc

    def sync(self) -> None:
        """Make what was appended outlive a power cut. Raises OSError, which names the file."""
        try:
            os.fsync(self._descriptor)
        except OSError as exc:
            raise OSError(exc.errno, exc.strerror, str(self.path)) from exc

    def recover(self) -> Iterator[Answered]:
        """Cut off a torn end, and give what is in the file. Raises OutputError for a file that is none of ours."""
        with os.fdopen(os.dup(self._descriptor), "rb", buffering=READ_BYTES) as file:
            file.seek(0)
            end = 0
            for line in file:
                if not line.endswith(b"\n"):
                    os.ftruncate(self._descriptor, end)
                    return
                end += len(line)
                answered = scan(line)
                if answered is None:
                    remedy = "name another output, or move the file away"
                    raise OutputError(f"{self.path} contains lines that are not a batch's answers; {remedy}")
                yield answered

    def drop_failures(self) -> None:
        """Keep only lines that can never succeed, so that the others are tried again."""
        partial = self.path.with_name(self.path.name + ".partial")
        with partial.open("wb") as kept, self.path.open("rb") as file:
            for line in file:
                answered = scan(line)
                if answered is not None and answered.code == INVALID_LINE and line.endswith(b"\n"):
                    kept.write(line)
            kept.flush()
            os.fsync(kept.fileno())
        partial.replace(self.path)
        self.__exit__()
        self.__enter__()

"""The output and errors files of a batch: appended line by line, and read again to find what is done.

A line is one write to a file opened for appending, so a kill leaves whole lines and at most one torn end, which the
next run cuts off. There is no other record: what is in the files is done, and nothing else.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

from ai_client.batch.lines import INVALID_LINE, Answered, scan

READ_BYTES = 1 << 20
_MODE = 0o640


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


def check_apart(*paths: Path) -> None:
    """Whether what is written goes to files of its own each. Raises OutputError."""
    places = [path.resolve() for path in paths]
    for number, path in enumerate(paths):
        if places[number] in places[:number]:
            raise OutputError(f"{path} would be written for two purposes; name another file for one of them")


def write_whole(path: Path, text: str) -> None:
    """Write a small file: all of it or nothing. Raises OSError, which names the file."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _MODE)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as exc:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise OSError(exc.errno, exc.strerror, str(path)) from exc


class LineFile:
    """One of the files. A context manager; locked against a second run while it is open.

    A run that is refused leaves no empty file behind that it made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1
        self._is_new = False

    def __enter__(self) -> Self:
        self._is_new = not os.path.lexists(self.path)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            self._descriptor = os.open(self.path, flags, _MODE)
        except OSError as exc:
            raise OutputError(f"{self.path} can't be written ({exc.strerror}); name another output") from exc
        if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            # It is read again to know what is done, and may be cut.
            os.close(self._descriptor)
            raise OutputError(f"{self.path} is not a regular file; name another output")
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            os.close(self._descriptor)
            remedy = "wait for it, or name another output"
            raise OutputError(f"{self.path} is being written by another run; {remedy}") from exc
        return self

    def __exit__(self, *exc_info: object) -> None:
        is_refused = any(each is not None for each in exc_info)
        if is_refused and self._is_new and os.fstat(self._descriptor).st_size == 0:
            with suppress(OSError):
                self.path.unlink()
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

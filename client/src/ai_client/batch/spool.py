"""A spool folder: files of requests put into it are worked through, by any number of workers, and set aside.

    SPOOL/in/NAME.jsonl      put here by rename, from the same file system
    SPOOL/work/NAME.jsonl    claimed; its output grows beside it
    SPOOL/done/NAME/         input.jsonl, output.jsonl, errors.jsonl
    SPOOL/failed/NAME/       the same, and reason.txt: a file that could not be worked through in several attempts

A claim is a rename, so one worker alone gets a file, and a lock on the claimed file, so that a file whose worker
died is taken up by another, which goes on where that one stopped.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SUFFIX = ".jsonl"
_ATTEMPTS = ".attempts"


@dataclass(frozen=True, slots=True)
class Claim:
    """A file that is ours. `descriptor` holds its lock."""

    spool: Spool
    name: str
    descriptor: int

    @property
    def source(self) -> Path:
        """The input."""
        return self.spool.work / f"{self.name}{SUFFIX}"

    @property
    def output(self) -> Path:
        """Where answers go."""
        return self.spool.work / f"{self.name}.output"

    @property
    def errors(self) -> Path:
        """Where failures go."""
        return self.spool.work / f"{self.name}.errors"

    def attempts(self) -> int:
        """How often work on it has begun."""
        try:
            return int(self._attempts_path.read_text())
        except (FileNotFoundError, ValueError):
            return 0

    def begin(self) -> int:
        """Count an attempt before it begins, so that one that kills its worker counts too: its number."""
        number = self.attempts() + 1
        self._attempts_path.write_text(str(number))
        return number

    def forgive(self) -> None:
        """The attempt ended for a reason that was not the file's."""
        self._attempts_path.write_text(str(max(0, self.attempts() - 1)))

    @property
    def _attempts_path(self) -> Path:
        return self.spool.work / f"{self.name}{_ATTEMPTS}"

    def finish(self) -> Path:
        """Set it aside as done: the folder."""
        return self._set_aside(self.spool.done)

    def fail(self, reason: str) -> Path:
        """Set it aside as failed: the folder."""
        self.output.parent.joinpath(f"{self.name}.reason").write_text(reason + "\n")
        return self._set_aside(self.spool.failed)

    def release(self) -> None:
        """Leave it to another worker."""
        os.close(self.descriptor)

    def _set_aside(self, place: Path) -> Path:
        folder = _free(place / self.name)
        folder.mkdir()
        moves = (
            (self.output, "output.jsonl"),
            (self.errors, "errors.jsonl"),
            (self.spool.work / f"{self.name}.reason", "reason.txt"),
            # The input last: while it is in work, a worker that finds it repeats the moves.
            (self.source, "input.jsonl"),
        )
        for path, name in moves:
            with suppress(FileNotFoundError):
                path.rename(folder / name)
        for leftover in (self._attempts_path, self.output.with_name(self.output.name + ".input")):
            leftover.unlink(missing_ok=True)
        self.release()
        return folder


def _free(path: Path) -> Path:
    """The path, or with a number behind it where it is taken: a name may come twice."""
    number = 1
    found = path
    while found.exists():
        number += 1
        found = path.with_name(f"{path.name}.{number}")
    return found


class Spool:
    """The folders. Raises OSError where they can't be made."""

    def __init__(self, folder: Path) -> None:
        self.incoming, self.work, self.done, self.failed = (
            folder / name for name in ("in", "work", "done", "failed")
        )
        for each in (self.incoming, self.work, self.done, self.failed):
            each.mkdir(mode=0o770, parents=True, exist_ok=True)

    def claim(self) -> Claim | None:
        """A file to work on: one whose worker died, else the oldest that waits; None where there is none."""
        for path in self._names(self.work):
            claim = self._lock(path)
            if claim is not None:
                return claim
        for path in self._names(self.incoming):
            target = self.work / path.name
            if target.exists():
                continue  # the same name is being worked on: it waits for its turn
            try:
                path.rename(target)
            except FileNotFoundError:
                continue  # another worker was faster
            claim = self._lock(target)
            if claim is not None:
                return claim
        return None

    @staticmethod
    def _names(folder: Path) -> Iterator[Path]:
        found = [path for path in folder.iterdir() if path.suffix == SUFFIX and not path.name.startswith(".")]
        yield from sorted(found, key=_age)

    def _lock(self, path: Path) -> Claim | None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between opening and locking it may have been set aside by the worker that held it.
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                return Claim(self, path.stem, descriptor)
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(descriptor)
        return None


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0

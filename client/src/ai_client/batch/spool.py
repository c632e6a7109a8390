"""A spool folder: files of requests put into it are worked through, by any number of workers, and set aside.

    SPOOL/in/NAME.jsonl      put here by rename, from the same file system
    SPOOL/work/NAME.jsonl    claimed; its output grows beside it
    SPOOL/done/NAME/         input.jsonl, output.jsonl, errors.jsonl
    SPOOL/failed/NAME/       the same, and reason.txt: a file that could not be worked through in several attempts

A claim is a rename, so one worker alone gets a file, and a lock on the claimed file, so that a file whose worker
died is taken up by another, which goes on where that one stopped; also in setting it aside, which begins with a note
of where to. What is no regular file (a pipe, a link, a folder), or has a name too long to work beside, is never opened:
it goes to `failed` as it is.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ai_client.batch.output import write_whole

SUFFIX = ".jsonl"
_ATTEMPTS = ".attempts"
#: Of a file's name. What stands beside it while it is worked on has longer ones, of which file systems take 255 bytes.
LONGEST_NAME_BYTES = 200


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
        write_whole(self._attempts_path, str(number))
        return number

    def forgive(self) -> None:
        """The attempt ended for a reason that was not the file's."""
        write_whole(self._attempts_path, str(max(0, self.attempts() - 1)))

    @property
    def _attempts_path(self) -> Path:
        return self.spool.work / f"{self.name}{_ATTEMPTS}"

    def finish(self) -> Path:
        """Set it aside as done: the folder."""
        return self._set_aside(self.spool.done)

    def fail(self, reason: str) -> Path:
        """Set it aside as failed: the folder."""
        write_whole(self.spool.work / f"{self.name}.reason", reason + "\n")
        return self._set_aside(self.spool.failed)

    def finish_interrupted(self) -> bool:
        """Whether an earlier worker was setting it aside and died; then that is done now."""
        try:
            noted = json.loads(self._aside_path.read_text())
        except (FileNotFoundError, ValueError):
            return False
        if noted.get("inode") != os.fstat(self.descriptor).st_ino:
            return False  # of an earlier file of this name, whose last step was all that was missing
        self._move_to(self.spool.folder / noted["folder"])
        return True

    def release(self) -> None:
        """Leave it to another worker. Idempotent."""
        with suppress(OSError):
            os.close(self.descriptor)

    @property
    def _aside_path(self) -> Path:
        return self.spool.work / f"{self.name}.aside"

    def _set_aside(self, place: Path) -> Path:
        folder = _free(place / self.name)
        # By number of the file and not by name: a second file of this name is another one.
        noted = {
            "folder": str(folder.relative_to(self.spool.folder)),
            "inode": os.fstat(self.descriptor).st_ino,
        }
        write_whole(self._aside_path, json.dumps(noted))
        self._move_to(folder)
        return folder

    def _move_to(self, folder: Path) -> None:
        """Each step may be the last one: the next worker repeats them all, until the input is gone from `work`."""
        folder.mkdir(exist_ok=True)
        for path, name in (
            (self.output, "output.jsonl"),
            (self.errors, "errors.jsonl"),
            (self.spool.work / f"{self.name}.reason", "reason.txt"),
        ):
            with suppress(FileNotFoundError):
                path.rename(folder / name)
        for leftover in (self._attempts_path, self.output.with_name(self.output.name + ".input")):
            leftover.unlink(missing_ok=True)
        _sync_folder(folder)
        self.source.rename(folder / "input.jsonl")
        self._aside_path.unlink(missing_ok=True)
        _sync_folder(folder)
        _sync_folder(self.spool.work)
        self.release()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
        self.folder = folder
        self.incoming, self.work, self.done, self.failed = (
            folder / name for name in ("in", "work", "done", "failed")
        )
        for each in (self.incoming, self.work, self.done, self.failed):
            each.mkdir(mode=0o770, parents=True, exist_ok=True)
        self._refused: list[tuple[str, str]] = []

    def claim(self) -> Claim | None:
        """A file to work on: one whose worker died, else the oldest that waits; None where there is none."""
        with self._alone():
            for path in self._names(self.work):
                claim = self._lock(path)
                if claim is not None:
                    return claim
            for path in self._names(self.incoming):
                target = self.work / path.name
                if os.path.lexists(target):
                    continue  # the same name is being worked on: it waits for its turn
                try:
                    path.rename(target)
                except FileNotFoundError:
                    continue  # whoever put it there has taken it away
                claim = self._lock(target)
                if claim is not None:
                    return claim
        return None

    def take_refused(self) -> list[tuple[str, str]]:
        """Name and reason of what was put into `failed` without being opened, since the last call."""
        refused, self._refused = self._refused, []
        return refused

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One worker claims at a time: a rename would take the place of a file of the same name."""
        lock = os.open(self.work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    @staticmethod
    def _names(folder: Path) -> Iterator[Path]:
        found = [path for path in folder.iterdir() if path.suffix == SUFFIX and not path.name.startswith(".")]
        yield from sorted(found, key=_age)

    def _lock(self, path: Path) -> Claim | None:
        """A claim on a file in `work`; None where another worker has it, or it is no file to work on."""
        if len(os.fsencode(path.name)) > LONGEST_NAME_BYTES:
            self._refuse(path, f"has a name of over {LONGEST_NAME_BYTES} bytes; use a shorter one")
            return None
        try:
            # A pipe that nobody writes to would keep a plain open waiting for ever.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as exc:
            self._refuse(
                path, f"can't be opened ({exc.strerror}); put a regular file there that ai-client may read"
            )
            return None
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                self._refuse(path, "is not a regular file; put a copy of its content there")
            else:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Between opening and locking it may have been set aside by the worker that held it.
                if found.st_ino == path.stat().st_ino:
                    return Claim(self, path.stem, descriptor)
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(descriptor)
        return None

    def _refuse(self, path: Path, reason: str) -> None:
        folder = _free(self.failed / path.stem)
        folder.mkdir()
        write_whole(folder / "reason.txt", f"{path.name} {reason}\n")
        path.rename(folder / "input.jsonl")
        self._refused.append((path.stem, reason))


def _age(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return 0.0

"""A cache of finished folders, each named by the digest of what it was made from.

A folder is made beside its place under another name and renamed when it is complete and on disk, by one process at a
time. So a folder that is there is whole, whatever was killed before.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import disk_error


def root(environ: dict[str, str]) -> Path:
    """The folder of all engines, outside of any checkout."""
    base = environ.get("XDG_CACHE_HOME") or str(Path(environ.get("HOME") or "~").expanduser() / ".cache")
    return Path(base) / "ai-client-fleet" / "engine"


def ensure(entry: Path, *, make: Callable[[Path], None], on_wait: Callable[[], None] = lambda: None) -> Path:
    """Gives `entry`, filled by `make` where it is not there yet; waits where another process is filling it."""
    if entry.is_dir():
        return entry
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with _locked(entry.with_suffix(".lock"), on_wait=on_wait):
            if not entry.is_dir():
                _fill(entry, make=make)
    except OSError as error:
        raise disk_error(error, folder=entry.parent) from error
    return entry


def _fill(entry: Path, *, make: Callable[[Path], None]) -> None:
    partial = entry.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by a process that was killed: we hold the lock now
    partial.mkdir()
    try:
        make(partial)
        _flush(partial)
        partial.rename(entry)
        _flush_folder(entry.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _locked(path: Path, *, on_wait: Callable[[], None]) -> Iterator[None]:
    """The lock ends with this process, however it ends."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _flush(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            with (Path(parent) / name).open("rb") as file:
                os.fsync(file.fileno())
        _flush_folder(Path(parent))


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

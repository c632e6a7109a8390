"""A run's folder for what Ansible reads from files: nothing secret, gone with the run, swept where that was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_PREFIX = "ai-client-fleet-"
_LOCK = ".in-use"


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new folder for this process alone, removed at the end. Those of processes that died are removed first."""
    _sweep(Path(tempfile.gettempdir()))
    made = Path(tempfile.mkdtemp(prefix=f"new-{_PREFIX}"))
    folder = made.with_name(made.name.removeprefix("new-"))
    # Locked before it has the name that is swept. The lock ends with the process that holds it, however that ends.
    with (made / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made.rename(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _sweep(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.lstat().st_uid == os.geteuid() and not folder.is_symlink():
                _remove_unless_in_use(folder)


def _remove_unless_in_use(folder: Path) -> None:
    # Opened without making it: a folder that has no lock yet is one that another process is just about to take.
    with (folder / _LOCK).open("r") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        shutil.rmtree(folder, ignore_errors=True)

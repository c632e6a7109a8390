"""Records on disk that are whole or absent, and locks that outlive no one."""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tools.hosts.errors import HostsError

LOCK_TIMEOUT_S = 180.0
LOCK_POLL_S = 0.05


def read_record(path: Path) -> dict[str, object] | None:
    """A record, or None where there is none."""
    try:
        given = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise HostsError(str(path), f"is damaged ({error})", "purge the fleet and make it anew") from error
    if not isinstance(given, dict):
        raise HostsError(str(path), "is damaged (no object)", "purge the fleet and make it anew")
    return given


def write_record(path: Path, record: Mapping[str, object]) -> None:
    """Puts a record in place by rename."""
    write_text(path, json.dumps(record, sort_keys=True, indent=1) + "\n", mode=0o600)


def write_text(path: Path, text: str, *, mode: int, owner: int | None = None) -> None:
    """Puts a file in place by rename, with its mode and owner from the start."""
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        os.fchmod(file.fileno(), mode)
        if owner is not None:
            os.fchown(file.fileno(), owner, owner)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)


@contextmanager
def locked(
    path: Path, *, shared: bool = False, timeout_s: float = LOCK_TIMEOUT_S, say: Callable[[str], None]
) -> Iterator[None]:
    """Holds a lock file; waits for other runs, and gives up with a clear error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout_s
    told = False
    while (handle := _try_lock(path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)) is None:
        if not told:
            say(f"waiting for another run that holds {path}")
            told = True
        if time.monotonic() > deadline:
            reason = f"another run has held it for {timeout_s:.0f} s"
            raise HostsError(f"lock {path}", reason, "wait for that run or end it, then run again")
        time.sleep(LOCK_POLL_S)
    try:
        yield
    finally:
        os.close(handle)


def _try_lock(path: Path, operation: int) -> int | None:
    """The open lock, or None while another holds it, or where it was removed between open and lock."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, operation | fcntl.LOCK_NB)
        if os.stat(path).st_ino == os.fstat(handle).st_ino:  # noqa: PTH116 - compared with a descriptor
            return handle
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(handle)
    return None

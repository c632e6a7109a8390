"""Whether the files of an installation are still as the last deploy left them, by what it recorded for the service.

The record has a digest of rights, sizes, inodes and change times: the kernel sets the change time at every write and
every change of rights, and no call sets it to another value. Whoever may write the record may lie with it: root.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from enum import StrEnum
from pathlib import Path

RECORD = Path("/etc/ai-client/sealed.json")
_OUR_NAMES = ("ai-client", ".ai-client-apply.")


class Files(StrEnum):
    """What is known of them."""

    SEALED = "sealed"
    CHANGED = "changed"
    #: No deploy left a record here, or it can't be read.
    UNKNOWN = "unknown"


def look(record: Path = RECORD, *, root: str = "") -> Files:
    """The files as they are now. Some thousand system calls."""
    try:
        told = json.loads(record.read_text("utf-8"))
        expected, paths, release = str(told["files"]), list(told["paths"]), str(told["release"])
    except (OSError, ValueError, TypeError, KeyError):
        return Files.UNKNOWN
    try:
        return Files.SEALED if digest(root, paths=paths, release=release) == expected else Files.CHANGED
    except OSError:
        return Files.UNKNOWN


def digest(root: str, *, paths: list[str], release: str) -> str:
    """As the deploy makes it (`files_digest` of its unchanged check). Raises OSError."""
    rows: list[object] = [_row(root, path) for path in paths]
    _walk(f"{root}{release}", rows)
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def _row(root: str, path: str) -> tuple[object, ...]:
    try:
        seen = os.lstat(root + path)
    except (FileNotFoundError, NotADirectoryError):
        return (path,)
    if path.endswith(".d"):
        return (path, *((name, *_identity(os.lstat(f"{root}{path}/{name}"))) for name in _names(root + path)))
    if stat.S_ISDIR(seen.st_mode):
        ours = [name for name in _names(root + path) if name.startswith(_OUR_NAMES)]
        return (path, seen.st_mode, seen.st_uid, seen.st_gid, ours)
    return (path, *_identity(seen))


def _names(folder: str) -> list[str]:
    try:
        return sorted(each.name for each in Path(folder).iterdir())
    except NotADirectoryError:
        return []


def _identity(seen: os.stat_result) -> tuple[int, ...]:
    times = (seen.st_mtime_ns, seen.st_ctime_ns)
    return (seen.st_mode, seen.st_uid, seen.st_gid, seen.st_size, seen.st_ino, *times)


def _walk(folder: str, rows: list[object]) -> None:
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry.name, entry.stat(follow_symlinks=False)) for entry in entries)
    except FileNotFoundError:
        return
    for name, seen in found:
        if stat.S_ISDIR(seen.st_mode):
            rows.append((name, seen.st_mode, seen.st_uid, seen.st_gid, seen.st_ctime_ns))
            _walk(f"{folder}/{name}", rows)
        else:
            rows.append((name, seen.st_mode, seen.st_size, seen.st_ctime_ns))

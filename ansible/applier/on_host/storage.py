"""What of the host's file systems stands in the way of a file: named with the path, the file system, and the remedy."""

import errno
import fcntl
import os
import struct
from collections.abc import Iterable
from typing import NamedTuple

from .errors import ApplyError
from .items import Absent, Directory, File, Found, Identity, Item, Link, Release
from .tree import Tree

_GET_FLAGS = 0x80086601  # FS_IOC_GETFLAGS of 64-bit systems, from linux/fs.h
_IMMUTABLE, _APPEND_ONLY = 0x10, 0x20
# A file system that is full to the last block makes no folder either.
_SPARE_BYTES = 64 << 10
# A packed tree and what it becomes, bytecode included.
_GROWS = 4


class FileSystem(NamedTuple):
    """Where a path lies: `free` bytes are root's to use."""

    mount: str
    free_bytes: int
    free_inodes: int | None
    is_read_only: bool
    is_noexec: bool


def file_system(tree: Tree, path: str) -> FileSystem:
    """The file system of a path, or of the nearest folder above it that exists."""
    real = tree.real(path)
    while not os.path.exists(real):
        real = os.path.dirname(real) or "/"
    seen = os.statvfs(real)
    inodes = seen.f_ffree if seen.f_files else None
    free = seen.f_bfree * seen.f_frsize
    flags = bool(seen.f_flag & os.ST_RDONLY), bool(seen.f_flag & os.ST_NOEXEC)
    return FileSystem(_mount(real), free, inodes, *flags)


def _mount(real: str) -> str:
    device = os.stat(real).st_dev
    while real != "/" and os.stat(os.path.dirname(real)).st_dev == device:
        real = os.path.dirname(real)
    return real


def explain(tree: Tree, error: OSError) -> ApplyError:
    """What the system refused, in words that a person can act on."""
    path = error.filename if isinstance(error.filename, str) else ""
    path = tree.shown(path)
    reason = error.strerror or "can't be used"
    if not path.startswith("/"):
        return ApplyError(path or "the host", reason, "fix this on the host and run again")
    there = file_system(tree, path)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ApplyError(path, f"{reason} ({_named(there)})", "free space there and run again")
    if error.errno == errno.EROFS:
        return ApplyError(path, f"{reason} ({_named(there)})", "mount it read-write and run again")
    held = _held_by(tree, path) if error.errno in (errno.EPERM, errno.EACCES) else ""
    if held:
        return ApplyError(held, "can't be changed: it is immutable", f"chattr -i -a {held}, and run again")
    link = _link_above(tree, path) if error.errno in (errno.ELOOP, errno.ENOTDIR) else ""
    if link:
        return ApplyError(*_about_link(tree, link))
    return ApplyError(path, f"{reason} ({_named(there)})", "fix this on the host and run again")


def _named(there: FileSystem) -> str:
    return f"file system {there.mount}, {there.free_bytes >> 20} MiB free"


def _held_by(tree: Tree, path: str) -> str:
    """The file, or the folder it is in, that has the flag of `chattr +i` or `+a`; empty where neither has."""
    for candidate in (path, os.path.dirname(path)):
        try:
            descriptor = os.open(tree.real(candidate), os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            (flags,) = struct.unpack("l", fcntl.ioctl(descriptor, _GET_FLAGS, bytes(8)))
        except OSError:
            continue
        finally:
            os.close(descriptor)
        if flags & (_IMMUTABLE | _APPEND_ONLY):
            return candidate
    return ""


def _link_above(tree: Tree, path: str) -> str:
    folder = os.path.dirname(path)
    return next((p for p in (path, folder) if tree.look(p).kind == "link"), "")


def _about_link(tree: Tree, path: str) -> tuple[str, str, str]:
    target = tree.look(path).target
    return (
        path,
        f"is a link to {target} and no folder",
        f"move it away, or name {target} itself in the variable of this folder",
    )


def obstacles(
    tree: Tree, items: Iterable[Item], found: dict[str, Found], *, release_bytes: int
) -> list[ApplyError]:
    """What would make laying these items down fail, before anything is changed; each path once.

    Args:
        tree: the host's files.
        items: what is to be laid down.
        found: what is at their paths now.
        release_bytes: size of the packed tree; 0 where it is not known.
    """
    items = [item for item in items if not isinstance(item, Identity)]
    to_come = {item.path for item in items if isinstance(item, Directory)}
    stands: list[ApplyError] = []
    needed: dict[str, int] = {}
    for item in items:
        error = _in_the_way(tree, item, found[item.path], to_come)
        if error is not None:
            stands.append(error)
            continue
        size = _size(item, release_bytes)
        if size is not None:
            mount = file_system(tree, item.path).mount
            needed[mount] = needed.get(mount, 0) + size
    unique = {str(error): error for error in [*stands, *_without_room(needed)]}
    return list(unique.values())


def _size(item: Item, release_bytes: int) -> int | None:
    if isinstance(item, Absent):
        return None
    if isinstance(item, Release):
        return release_bytes * _GROWS
    return len(item.content) if isinstance(item, File) else 0


def _in_the_way(tree: Tree, item: Item, there: Found, to_come: set[str]) -> ApplyError | None:
    if isinstance(item, Directory) and there.kind not in ("absent", "directory"):
        if there.kind == "link":
            return ApplyError(*_about_link(tree, item.path))
        return ApplyError(item.path, "exists and is not a folder", "move it away")
    if isinstance(item, (File, Link, Absent)) and there.kind == "directory":
        return ApplyError(item.path, "is a folder where a file belongs", "move it away")
    folder = os.path.dirname(item.path)
    if not isinstance(item, Directory) and folder not in to_come and tree.look(folder).kind == "link":
        return ApplyError(*_about_link(tree, folder))
    if isinstance(item, Directory) and folder not in to_come and not os.path.isdir(tree.real(folder)):
        return ApplyError(item.path, "can't be made: its parent folder is missing", "make that first")
    return _unwritable(tree, item)


def _unwritable(tree: Tree, item: Item) -> ApplyError | None:
    there = file_system(tree, item.path)
    if there.is_read_only:
        return ApplyError(
            item.path,
            f"its file system {there.mount} is mounted read-only",
            "mount it read-write and run again",
        )
    if there.is_noexec and isinstance(item, Release):
        reason = f"its file system {there.mount} is mounted noexec, and the service is started from it"
        return ApplyError(item.path, reason, "mount it with exec and run again")
    held = _held_by(tree, item.path)
    if held:
        return ApplyError(held, "can't be changed: it is immutable", f"chattr -i -a {held}, and run again")
    return None


def _without_room(needed: dict[str, int]) -> list[ApplyError]:
    errors = []
    for mount, size in needed.items():
        there = os.statvfs(mount)
        free = there.f_bfree * there.f_frsize
        has_inodes = not there.f_files or there.f_ffree > 0
        if free < size + _SPARE_BYTES or not has_inodes:
            what = f"{free >> 10} KiB" if has_inodes else "no inodes"
            reason = f"has {what} free; this run needs {(size + _SPARE_BYTES) >> 10} KiB"
            errors.append(ApplyError(f"file system {mount}", reason, "free space there and run again"))
    return errors


def refuse(stands: list[ApplyError]) -> ApplyError:
    """One error for all that stands in the way."""
    if len(stands) == 1:
        return stands[0]
    return ApplyError(
        f"{len(stands)} obstacles are in the way", "; ".join(map(str, stands)), "then run again"
    )

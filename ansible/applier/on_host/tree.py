"""A host's files, read and written so that no planted link is followed and nothing is ever half there."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from . import places
from .errors import ApplyError
from .items import NOTHING, Found

_READ_LIMIT_BYTES = 4 << 20
_NO_FOLLOW = os.O_NOFOLLOW | os.O_CLOEXEC
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR)


class Tree:
    """The file system below `root`, which is empty on a real host."""

    def __init__(self, root: str = "") -> None:
        self.root = root

    def real(self, path: str) -> str:
        """Where `path` really lies."""
        return self.root + path

    def shown(self, name: str) -> str:
        """A real file's name as it is on the host."""
        return name[len(self.root) :] if name.startswith(self.root) else name

    def look(self, path: str) -> Found:
        """What is at `path`, itself, not what a link there leads to."""
        try:
            descriptor = os.open(self.real(path), os.O_RDONLY | os.O_NONBLOCK | _NO_FOLLOW)
        except OSError as error:
            return self._look_at_link(path, error)
        try:
            status = os.fstat(descriptor)
            kind, content, is_empty = "other", b"", False
            if stat.S_ISREG(status.st_mode):
                kind, content = "file", _read(descriptor)
            elif stat.S_ISDIR(status.st_mode):
                kind, is_empty = "directory", not os.listdir(descriptor)
        finally:
            os.close(descriptor)
        mode = stat.S_IMODE(status.st_mode)
        return Found(kind, content, "", status.st_uid, status.st_gid, mode, is_empty)

    def _look_at_link(self, path: str, error: OSError) -> Found:
        if error.errno in _NOT_THERE:
            return NOTHING
        if error.errno == errno.ELOOP:
            return Found("link", target=os.readlink(self.real(path)))
        if error.errno == errno.ENXIO:
            return Found("other")
        raise error

    def read(self, path: str) -> bytes | None:
        """The bytes of a file of ours; None where there is none."""
        found = self.look(path)
        return found.content if found.kind == "file" else None

    def names(self, path: str) -> list[str]:
        """The names in a folder, sorted; none where it does not exist."""
        try:
            return sorted(os.listdir(self.real(path)))
        except OSError as error:
            if error.errno in _NOT_THERE:
                return []
            raise

    def write(self, path: str, content: bytes, *, gid: int, mode: int) -> None:
        """Replaces the file by rename. It belongs to root; nobody sees it with other rights or half written."""
        with self._folder_of(path) as (folder, name):
            partial = places.PARTIAL_PREFIX + name
            _unlink(partial, folder)
            descriptor = os.open(
                partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, 0o600, dir_fd=folder
            )
            try:
                with os.fdopen(descriptor, "wb") as out:
                    out.write(content)
                    os.fchown(out.fileno(), 0, gid)
                    os.fchmod(out.fileno(), mode)
                    out.flush()
                    os.fsync(out.fileno())
                _refuse_folder(path, name, folder)
                os.rename(partial, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                _unlink(partial, folder)
                raise
            os.fsync(folder)

    def link(self, path: str, target: str) -> None:
        """Puts a symbolic link in place by rename."""
        os.makedirs(os.path.dirname(self.real(path)), mode=0o755, exist_ok=True)
        with self._folder_of(path) as (folder, name):
            partial = places.PARTIAL_PREFIX + name
            _unlink(partial, folder)
            os.symlink(target, partial, dir_fd=folder)
            _refuse_folder(path, name, folder)
            os.rename(partial, name, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)

    def directory(self, path: str, *, uid: int, gid: int, mode: int) -> None:
        """Makes the folder, or gives it its owner and mode. A link or file in its place is refused."""
        real = self.real(path)
        try:
            os.mkdir(real, 0o700)
        except FileExistsError:
            if self.look(path).kind != "directory":
                raise ApplyError(path, "exists and is not a folder", "move it away") from None
        except FileNotFoundError:
            raise ApplyError(path, "can't be made: its parent folder is missing", "make that first") from None
        descriptor = os.open(real, os.O_RDONLY | os.O_DIRECTORY | _NO_FOLLOW)
        try:
            os.fchown(descriptor, uid, gid)
            os.fchmod(descriptor, mode)
        finally:
            os.close(descriptor)

    def rename(self, path: str, target: str) -> None:
        """Gives a file or link another name in its folder; one that has that name already gets a longer one."""
        while os.path.lexists(self.real(target)):
            target += "~"
        with self._folder_of(path) as (folder, name):
            os.rename(name, os.path.basename(target), src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)

    def remove(self, path: str) -> None:
        """Removes a file or link, where there is one."""
        try:
            with self._folder_of(path) as (folder, name):
                _refuse_folder(path, name, folder)
                _unlink(name, folder)
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise

    def remove_all(self, path: str) -> None:
        """Removes a folder with all that is in it, or a file, or a link; follows no link on the way."""
        kind = self.look(path).kind
        if kind == "absent":
            return
        if kind != "directory":
            self.remove(path)
            return
        # Imported here: half of all runs remove nothing.
        import shutil

        try:
            shutil.rmtree(self.real(path))
        except OSError as error:
            # A file system of its own is mounted here: its content is gone, the folder is not ours to unmount.
            if error.errno != errno.EBUSY or self.names(path):
                raise

    def remove_empty(self, path: str) -> None:
        """Removes a folder if nothing is in it."""
        try:
            os.rmdir(self.real(path))
        except OSError as error:
            if error.errno not in (*_NOT_THERE, errno.ENOTEMPTY):
                raise

    @contextmanager
    def _folder_of(self, path: str) -> Iterator[tuple[int, str]]:
        """The folder that a path is in, open; what is refused in it is told of the path, not of a partial file."""
        folder, name = os.path.split(self.real(path))
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | _NO_FOLLOW)
            try:
                yield descriptor, name
            finally:
                os.close(descriptor)
        except OSError as error:
            error.filename = self.real(path)
            raise


def _read(descriptor: int) -> bytes:
    pieces = []
    left = _READ_LIMIT_BYTES
    piece = os.read(descriptor, min(left, 1 << 16))
    while piece:
        pieces.append(piece)
        left -= len(piece)
        piece = os.read(descriptor, min(left, 1 << 16))
    return b"".join(pieces)


def _unlink(name: str, folder: int) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        pass


def _refuse_folder(path: str, name: str, folder: int) -> None:
    """A folder in a file's place may hold what somebody needs."""
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(status.st_mode):
        raise ApplyError(path, "is a folder where a file belongs", "move it away")

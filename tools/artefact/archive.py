"""The same files always make the same bytes."""

import gzip
import hashlib
import io
import tarfile
from dataclasses import dataclass
from pathlib import PurePosixPath

# Level 9 takes nine times as long for one per cent.
_GZIP_LEVEL = 6
_DIRECTORY_MODE = 0o755
_FILE_MODE = 0o644
_PROGRAM_MODE = 0o755


@dataclass(frozen=True)
class Archive:
    """A packed tree. `tar_sha256` is of the bytes inside, which no version of zlib changes."""

    content: bytes
    sha256: str
    tar_sha256: str


def pack(files: dict[str, bytes], *, programs: frozenset[str] = frozenset()) -> Archive:
    """A gzipped tar: sorted names, no times, owner 0, modes that depend on no umask. `programs` may be started."""
    tar = tarred(files, programs=programs)
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=_GZIP_LEVEL, fileobj=buffer, mtime=0) as out:
        out.write(tar)
    content = buffer.getvalue()
    return Archive(
        content=content,
        sha256=hashlib.sha256(content).hexdigest(),
        tar_sha256=hashlib.sha256(tar).hexdigest(),
    )


def tarred(files: dict[str, bytes], *, programs: frozenset[str] = frozenset()) -> bytes:
    """The same tar, not packed: for what is packed already."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in sorted(files.keys() | _folders(files)):
            info = tarfile.TarInfo(name)
            content = files.get(name)
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, _DIRECTORY_MODE
                tar.addfile(info)
            else:
                info.size, info.mode = len(content), _PROGRAM_MODE if name in programs else _FILE_MODE
                tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _folders(files: dict[str, bytes]) -> set[str]:
    """Every folder above a file; named in the archive, so that no unpacker's umask decides its mode."""
    return {str(parent) for name in files for parent in PurePosixPath(name).parents if str(parent) != "."}

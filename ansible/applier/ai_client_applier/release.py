"""A release: an unpacked tree, in a folder named by the digest of what it was unpacked from."""

import hashlib
import json
import os
import subprocess
from typing import NamedTuple

from ai_client_applier import places
from ai_client_applier.errors import ApplyError
from ai_client_applier.host import Host
from ai_client_applier.request import ReleaseTree, Request
from ai_client_applier.tree import Tree

_TIMEOUT_S = 300
# Bytecode that is never checked against its source: the tree's stamp covers both.
_COMPILE = """
import compileall, py_compile, sys
folder, later = sys.argv[1:]
mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
sys.exit(not compileall.compile_dir(folder, quiet=1, invalidation_mode=mode, stripdir=folder, prependdir=later))
"""


class Stamp(NamedTuple):
    """What a release looked like when it was laid down: `seen` of its inodes, `content` of its bytes."""

    seen: str
    content: str


def wanted(request: Request, host: Host) -> ReleaseTree:
    """The tree of the artefact for this host. Raises ApplyError where there is none that runs here."""
    tag = host.tag()
    tree = request.trees.get(tag)
    if tree is None:
        have = ", ".join(sorted(request.trees)) or "none"
        raise ApplyError(
            f"the artefact {request.version}", f"has no tree {tag}, only {have}", f"build one for {tag}"
        )
    glibc = host.glibc()
    if tree.glibc_min and (not glibc or _numbers(glibc) < _numbers(tree.glibc_min)):
        raise ApplyError(
            f"the tree {tag}",
            f"needs glibc {tree.glibc_min}, this host has {glibc or 'none'}",
            "use a newer system",
        )
    return tree


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def is_intact(tree: Tree, digest: str) -> bool:
    """Whether the release is here as it was laid down.

    Times and inodes are compared first, which costs milliseconds; where those differ (a restored backup) the bytes say.
    """
    stamp = _read_stamp(tree, digest)
    folder = tree.real(places.release_path(digest))
    if stamp is None or not os.path.isdir(folder):
        return False
    return _seen(folder) == stamp.seen or _content(folder) == stamp.content


def install(tree: Tree, host: Host, *, digest: str, artefact: bytes) -> None:
    """Unpacks beside the releases, compiles, and puts the folder in place by rename."""
    if hashlib.sha256(artefact).hexdigest() != digest:
        raise ApplyError("the artefact", "arrived with another digest than the index names", "run again")
    partial = f"{places.RELEASES}/{places.PARTIAL_PREFIX}{digest}"
    tree.remove_all(partial)
    tree.directory(partial, uid=0, gid=0, mode=0o755)
    folder = tree.real(partial)
    try:
        _run(
            [
                "tar",
                "--extract",
                "--gzip",
                "--no-same-owner",
                "--preserve-permissions",
                "--directory",
                folder,
            ],
            artefact,
        )
        host.reached("compile the release")
        _run([host.python(), "-I", "-S", "-c", _COMPILE, folder, places.release_path(digest)], b"")
        os.sync()
        host.reached("put the release in place")
        tree.remove_all(places.release_path(digest))
        os.rename(folder, tree.real(places.release_path(digest)))
    except BaseException:
        tree.remove_all(partial)
        raise
    host.reached("stamp the release")
    write_stamp(tree, digest)


def write_stamp(tree: Tree, digest: str) -> None:
    """Records how the release looks now."""
    folder = tree.real(places.release_path(digest))
    stamp = Stamp(_seen(folder), _content(folder))
    tree.write(_stamp_path(digest), (json.dumps(stamp._asdict()) + "\n").encode(), gid=0, mode=0o644)


def remove(tree: Tree, digest: str) -> None:
    """Removes a release and its stamp."""
    tree.remove(_stamp_path(digest))
    tree.remove_all(places.release_path(digest))


def installed(tree: Tree) -> list[str]:
    """The digests of all releases on the host."""
    return [name for name in tree.names(places.RELEASES) if not name.startswith(".") and "." not in name]


def current(tree: Tree) -> str:
    """The digest that `current` leads to; empty where there is none."""
    target = tree.look(places.CURRENT).target
    return target.removeprefix("releases/") if target.startswith("releases/") else ""


def _stamp_path(digest: str) -> str:
    return f"{places.RELEASES}/{digest}.json"


def _read_stamp(tree: Tree, digest: str) -> Stamp | None:
    content = tree.read(_stamp_path(digest))
    if content is None:
        return None
    try:
        return Stamp(**json.loads(content))
    except (ValueError, TypeError):
        return None


def _run(argv: list[str], stdin: bytes) -> None:
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        reason = f"did not end within {_TIMEOUT_S} s"
        raise ApplyError(f"{argv[0]} of the release", reason, "see what keeps the host busy") from error
    if done.returncode != 0:
        said = " ".join((done.stdout + done.stderr).decode(errors="replace").split())[-300:]
        raise ApplyError(
            f"{argv[0]} of the release", said or f"ended with {done.returncode}", "is the disk full?"
        )


def _entries(folder: str, prefix: str = "") -> "list[tuple[str, os.stat_result]]":
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            name = prefix + entry.name
            found.append((name, entry.stat(follow_symlinks=False)))
            if entry.is_dir(follow_symlinks=False):
                found += _entries(entry.path, name + "/")
    return found


def _seen(folder: str) -> str:
    """A digest of every inode's rights, size and times. The time of the last change (ctime) can't be set by hand."""
    rows = sorted(
        (
            name,
            status.st_mode,
            status.st_uid,
            status.st_gid,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )
        for name, status in _entries(folder)
    )
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def _content(folder: str) -> str:
    """A digest of every file's name, rights and bytes."""
    total = hashlib.sha256()
    for name, status in sorted(_entries(folder), key=lambda entry: entry[0]):
        total.update(f"{name}\0{status.st_mode:o} {status.st_uid} {status.st_gid}\0".encode())
        path = os.path.join(folder, name)
        if os.path.islink(path):
            total.update(os.readlink(path).encode())
        elif not os.path.isdir(path):
            with open(path, "rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()

"""A release: an unpacked tree, in a folder named by the digest of what it was unpacked from."""

import hashlib
import json
import os
import subprocess
from typing import NamedTuple

from . import places
from .errors import ApplyError
from .host import ENVIRONMENT, Host
from .request import ReleaseTree, Request
from .tree import Tree

_TIMEOUT_S = 300
_UNPACK = ("tar", "--extract", "--gzip", "--no-same-owner", "--preserve-permissions", "--directory")
# In the place of a digest, on a host that has no release yet.
NOT_BUILT = "not-built-yet"
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


class Choice(NamedTuple):
    """The tree that a host runs, and the interpreter that starts it."""

    tag: str
    tree: ReleaseTree
    python: str


def wanted(request: Request, host: Host) -> Choice:
    """The tree of the artefact for this host: for its own Python, or the one that brings its own, as `ai_python` says.

    Raises ApplyError where there is none that runs here.
    """
    if not host.glibc():
        raise ApplyError("this host", "has another C library than glibc (musl?)", "use a system with glibc")
    own = f"own-{host.machine()}"
    is_ours = host.python().startswith(f"{places.OPT}/")
    if is_ours and request.python == "host":
        raise ApplyError("this host", "has no Python", "install python3 on it, or set ai_python: auto")
    if is_ours or request.python == "own":
        return _own(request, own)
    reason = _objection(request, host)
    if reason is None:
        return Choice(host.tag(), request.trees[host.tag()], host.python())
    if request.python == "auto" and own in request.trees:
        return _own(request, own)
    raise reason


def assumed(request: Request, tree: Tree, host: Host) -> Choice:
    """For a look whose controller has built nothing: what is installed counts as what is wanted."""
    digest = current(tree) or NOT_BUILT
    own = f"{places.CURRENT}/{places.OWN_PYTHON}"
    has_own = request.python == "own" or os.path.exists(tree.real(own))
    return Choice(host.tag(), ReleaseTree(digest, ""), own if has_own else host.python())


def _own(request: Request, tag: str) -> Choice:
    tree = request.trees.get(tag)
    if tree is None:
        raise _missing(request, tag, "build it by tools/artefact/build --own, or set ai_python: host")
    return Choice(tag, tree, f"{places.CURRENT}/{places.OWN_PYTHON}")


def _objection(request: Request, host: Host) -> ApplyError | None:
    """Why the host's own Python can't run the service; None where it can."""
    tag, remedy = host.tag(), "set ai_python: auto and build the artefact by tools/artefact/build --own"
    if tag.partition("-")[0].endswith("t"):
        return ApplyError(
            f"this host's Python ({tag})", "is a free-threaded build, for which there is no tree", remedy
        )
    tree = request.trees.get(tag)
    if tree is None:
        return _missing(request, tag, remedy)
    if tree.glibc_min and _numbers(host.glibc()) < _numbers(tree.glibc_min):
        return ApplyError(
            f"the tree {tag}", f"needs glibc {tree.glibc_min}, this host has {host.glibc()}", remedy
        )
    return None


def _missing(request: Request, tag: str, remedy: str) -> ApplyError:
    have = ", ".join(sorted(request.trees)) or "none"
    return ApplyError(f"the artefact {request.version}", f"has no tree {tag}, only {have}", remedy)


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
        _run([*_UNPACK, folder], artefact)
        host.reached("compile the release")
        interpreter = places.interpreter(folder, host.python())
        _run([interpreter, "-I", "-S", "-c", _COMPILE, folder, places.release_path(digest)], b"")
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
    return target[len("releases/") :] if target.startswith("releases/") else ""


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
        done = subprocess.run(
            argv,
            input=stdin,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError as error:
        raise ApplyError(f"{argv[0]} of the release", "is not installed", "install it on the host") from error
    except subprocess.TimeoutExpired as error:
        reason = f"did not end within {_TIMEOUT_S} s"
        raise ApplyError(f"{argv[0]} of the release", reason, "see what keeps the host busy") from error
    if done.returncode != 0:
        said = " ".join(done.stdout.decode(errors="replace").split())[-300:]
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
            total.update(_file_digest(path))
    return total.hexdigest()


def _file_digest(path: str) -> bytes:
    found = hashlib.sha256()
    with open(path, "rb") as file:
        for piece in iter(lambda: file.read(1 << 18), b""):
            found.update(piece)
    return found.digest()

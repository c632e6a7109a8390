"""Whether nothing at all changed since the host was last found right in every byte: some system calls, few imports.

At the end of a run that found or made everything right, a record is written: a digest of the request, and one of the
rights, sizes, inodes and change times of all that is ours. Where both still hold, the bytes hold: the kernel sets the
change time (ctime) at every write and every change of rights, and no call sets it to another value. Where anything
differs, the whole program compares bytes. On an unchanged host this is most of what a run costs, so nothing is
imported here that the interpreter has not loaded at its start.
"""

import fcntl
import os
import stat
import sys

try:
    from _sha2 import sha256  # type: ignore[import-not-found]  # hashlib loads OpenSSL for it
except ImportError:
    try:
        from _sha256 import sha256  # type: ignore[import-not-found]  # Python 3.11 and older have it under this name
    except ImportError:  # RHEL's Python has neither: FIPS wants OpenSSL's
        from hashlib import sha256

RECORD = "/etc/ai-client/seal"
# What of it the service reads.
SEALED = "/etc/ai-client/sealed.json"
# A folder that every host has: locking it leaves nothing behind.
LOCKED = "/etc"
# In folders that are not ours alone, these names are ours, in place or left by a run that was killed.
_OUR_NAMES = ("ai-client", ".ai-client-apply.")
_SHOW = ("systemctl", "show", "--property=LoadState,ActiveState,NeedDaemonReload")
_WELL = {b"LoadState=loaded", b"ActiveState=active", b"NeedDaemonReload=no"}
_ASK_LIMIT_S = 30
_MOST_BYTES = 1 << 20


def request_digest(desired: bytes) -> str:
    """Names what was asked for."""
    return str(sha256(desired).hexdigest())


def seen_digest(root: str, *, paths: list[str], release: str, ids: object) -> str:
    """A digest of how the paths, the release's tree, the user's numbers and the interpreter are now."""
    rows: list[object] = [_row(root, path) for path in paths]
    rows += [ids, sys.version, sys.executable, os.uname().machine]
    _walk(f"{root}{release}", rows)
    return str(sha256(repr(rows).encode()).hexdigest())


def files_digest(root: str, *, paths: list[str], release: str) -> str:
    """A digest of how the files alone are now. The client's service has the same, to tell of changes by itself."""
    rows: list[object] = [_row(root, path) for path in paths]
    _walk(f"{root}{release}", rows)
    return str(sha256(repr(rows).encode()).hexdigest())


def _row(root: str, path: str) -> tuple[object, ...]:
    try:
        seen = os.lstat(root + path)
    except (FileNotFoundError, NotADirectoryError):
        return (path,)
    if path.endswith(".d"):
        # Drop-ins: whoever put them there, they change what the service may do.
        return (path, *((name, *_identity(os.lstat(f"{root}{path}/{name}"))) for name in _names(root + path)))
    if stat.S_ISDIR(seen.st_mode):
        # Its own times change with every file of others.
        ours = sorted(name for name in os.listdir(root + path) if name.startswith(_OUR_NAMES))
        return (path, seen.st_mode, seen.st_uid, seen.st_gid, ours)
    return (path, *_identity(seen))


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except NotADirectoryError:
        return []


def _identity(seen: os.stat_result) -> tuple[int, ...]:
    return (
        seen.st_mode,
        seen.st_uid,
        seen.st_gid,
        seen.st_size,
        seen.st_ino,
        seen.st_mtime_ns,
        seen.st_ctime_ns,
    )


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


def encode_record(
    *, request: str, seen: str, paths: list[str], release: str, units: list[str], socket: str, answer: str
) -> bytes:
    """The record as its file holds it, a line each; `answer` is what an unchanged host says."""
    return "\n".join([request, seen, release, " ".join(units), socket, answer, *paths]).encode()


def check_unchanged(desired: bytes, *, is_check: bool) -> str | None:
    """The answer of an unchanged host; None where the whole program has to look."""
    if not hasattr(os, "posix_spawnp"):  # before Python 3.8
        return None
    try:
        with open(RECORD, encoding="utf-8") as file:
            request, seen, release, units, socket, answer, *paths = file.read().split("\n")
    except (OSError, ValueError):
        return None
    if request != request_digest(desired) or _is_being_changed():
        return None
    if seen != seen_digest("", paths=paths, release=release, ids=user_numbers()) or not _are_well(units):
        return None
    return answer if is_check else _with_health(answer, socket)


def _is_being_changed() -> bool:
    """Whether another run holds the host's lock; the whole program then says so."""
    folder = os.open(LOCKED, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(folder)
    return False


def user_numbers() -> tuple[int, ...]:
    """The numbers of our user; none where it does not exist."""
    import pwd

    try:
        found = pwd.getpwnam("ai-client")
    except KeyError:
        return ()
    return (found.pw_uid, found.pw_gid)


def _are_well(units: str) -> bool:
    """Whether systemd has every unit loaded as it is on disk, and running."""
    names = units.split()
    blocks = _output((*_SHOW, *names)).split(b"\n\n")
    return len(blocks) == len(names) and all(set(block.split()) == _WELL for block in blocks)


def _output(argv: tuple[str, ...]) -> bytes:
    """What a program says. `subprocess` would cost more than the program."""
    from _signal import alarm  # type: ignore[import-not-found]  # signal loads enum and re

    reader, writer = os.pipe()
    # Where systemd does not answer, neither do we.
    alarm(_ASK_LIMIT_S)
    actions = [(os.POSIX_SPAWN_DUP2, writer, 1)]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
    os.environ["PATH"] = environment["PATH"]
    child = os.posix_spawnp(argv[0], argv, environment, file_actions=actions)
    os.close(writer)
    said = b""
    piece = os.read(reader, 1 << 16)
    while piece:
        said += piece
        piece = os.read(reader, 1 << 16)
    os.close(reader)
    os.waitpid(child, 0)
    alarm(0)
    return said.strip()


def _with_health(answer: str, path: str) -> str | None:
    """The answer with the service's own report as text in it, or None where that is not good."""
    from _json import encode_basestring_ascii
    from _socket import AF_UNIX, SOCK_STREAM, socket

    said = b""
    connection = socket(AF_UNIX, SOCK_STREAM)
    try:
        connection.settimeout(_ASK_LIMIT_S)
        connection.connect(path)
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        piece = connection.recv(1 << 16)
        while piece and len(said) < _MOST_BYTES:
            said += piece
            piece = connection.recv(1 << 16)
    except OSError:
        return None
    finally:
        connection.close()
    head, _, body = said.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 ") or b"chunked" in head.lower():
        return None
    return f'{answer[:-1]}, "health_text": {encode_basestring_ascii(body.decode(errors="replace"))}}}'

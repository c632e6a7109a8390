"""The listening sockets: handed over by systemd, or bound here."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ai_client.settings import GatewaySettings

FIRST_FD = 3
UNIX_NAME = "gateway"
TCP_NAME = "gateway-tcp"
BACKLOG = 2048


class ListenError(Exception):
    """A socket can't be had; the text names it, the reason and the remedy."""


@dataclass(frozen=True, slots=True)
class BoundFile:
    """The Unix socket's file that was made here, and is ours to remove: not what has its name by then."""

    path: Path
    #: Device, inode and time, as an inode is given again; None: not known, of a release that handed over without it.
    mark: tuple[int, int, int] | None

    @classmethod
    def made(cls, path: Path) -> BoundFile:
        """What was bound at `path` just now. Raises OSError."""
        return cls(path, _mark(path))

    def remove(self) -> None:
        """Where it is still there. A folder that can't be written to keeps it, and the next start takes it away."""
        with suppress(OSError):
            if self.mark is None or _mark(self.path) == self.mark:
                self.path.unlink()


def _mark(path: Path) -> tuple[int, int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino, found.st_mtime_ns


@dataclass(frozen=True, slots=True)
class Listeners:
    """The gateway's sockets. `bound` is the Unix socket's file where it was made here."""

    unix: socket.socket
    tcp: socket.socket | None
    bound: BoundFile | None

    def all(self) -> list[socket.socket]:
        """Both, where there are two."""
        return [self.unix, self.tcp] if self.tcp is not None else [self.unix]

    def close(self, *, keep_path: bool) -> None:
        """A socket that nobody accepts on any more must not take connections. Calling it twice is fine.

        `keep_path`: another process listens under the same path.
        """
        for sock in self.all():
            sock.close()
        if self.bound is not None and not keep_path:
            self.bound.remove()

    def describe(self) -> str:
        """Where callers find them."""
        places = [str(self.unix.getsockname())]
        if self.tcp is not None:
            places.append(_address(self.tcp))
        return " and ".join(places)


@dataclass(frozen=True, slots=True)
class Places:
    """Where the service is found: the Unix socket's path, and `HOST:PORT` of callers over TCP and of metrics."""

    unix: str
    tcp: str | None
    metrics: str | None

    @classmethod
    def of(cls, listeners: Listeners, metrics: socket.socket | None) -> Places:
        """Those of open sockets."""
        return cls(
            str(listeners.unix.getsockname()),
            None if listeners.tcp is None else _address(listeners.tcp),
            None if metrics is None else _address(metrics),
        )


def _address(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def open_listeners(gateway: GatewaySettings, environment: Mapping[str, str]) -> Listeners:
    """The sockets that systemd passed, by their names; what it did not pass is bound here. Raises ListenError."""
    passed = _passed(environment)
    unix, bound = passed.get(UNIX_NAME), None
    if unix is None:
        unix, bound = _bind_unix(gateway.socket)
    tcp = passed.get(TCP_NAME)
    if tcp is None and gateway.port:
        tcp = bind_tcp(gateway.host, gateway.port, setting="[gateway] port")
    return Listeners(unix, tcp, bound)


def _passed(environment: Mapping[str, str]) -> dict[str, socket.socket]:
    """sd_listen_fds(3): the names of the descriptors from 3 on, where they are meant for this process."""
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return {}
    count = int(environment.get("LISTEN_FDS", "0"))
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    found = {}
    for offset, name in zip(range(count), names, strict=False):
        sock = socket.socket(fileno=FIRST_FD + offset)
        sock.setblocking(False)
        sock.set_inheritable(False)
        found[name] = sock
    return found


def _bind_unix(path: Path) -> tuple[socket.socket, BoundFile]:
    if len(os.fsencode(path)) > 107:
        raise ListenError(f"[gateway] socket {path} is too long for a Unix socket; use 107 bytes at most")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        _remove_stale(path)
        mask = os.umask(0o117)
        try:
            sock.bind(str(path))
        finally:
            os.umask(mask)
        bound = BoundFile.made(path)
        sock.listen(BACKLOG)
    except OSError as exc:
        sock.close()
        remedy = "make its folder, writable for the service's user"
        raise ListenError(f"[gateway] socket {path} can't be bound ({exc.strerror}); {remedy}") from exc
    return sock, bound


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody listens on any more. Raises ListenError where somebody does."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ListenError(f"[gateway] socket {path} exists and is not a socket; name another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
    raise ListenError(f"[gateway] socket {path} is in use by a running service; stop it first")


def bind_tcp(host: str, port: int, *, setting: str) -> socket.socket:
    """A listening TCP socket. Raises ListenError."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        sock = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as exc:
        raise ListenError(
            f"{setting} {host}:{port} can't be bound ({exc.strerror}); use a free port"
        ) from exc
    sock.setblocking(False)
    return sock

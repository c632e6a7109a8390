"""Asks the running service over its Unix socket."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

DEFAULT_SOCKET = Path("/run/ai-client/gateway.sock")


class ServiceUnreachableError(Exception):
    """The service can't be asked; the text names the socket, the reason and the remedy."""


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, *, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Called by the base class."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def socket_path(option: Path | None, config: Path) -> Path:
    """The socket named on the command line, else that of the configuration, else the default one.

    A configuration that can't be read or used is not this caller's concern: the service has its own.
    """
    if option is not None:
        return option
    from ai_client.settings import ConfigError, load  # noqa: PLC0415  not needed where the option is given

    try:
        return load(config).gateway.socket
    except ConfigError:
        return DEFAULT_SOCKET


def ask(path: Path, method: str, target: str, *, timeout_s: float) -> tuple[int, dict[str, Any]]:
    """Status and JSON body of the service's answer. Raises ServiceUnreachableError."""
    connection = UnixConnection(path, timeout_s=timeout_s)
    try:
        connection.request(method, target)
        answer = connection.getresponse()
        body = json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError) as exc:
        reason = (exc.strerror if isinstance(exc, OSError) else None) or type(exc).__name__
        remedy = "see `systemctl status ai-client`"
        raise ServiceUnreachableError(f"the service does not answer on {path} ({reason}); {remedy}") from exc
    finally:
        connection.close()
    if not isinstance(body, dict):
        raise ServiceUnreachableError(f"something else than the service answers on {path}; see its owner")
    return answer.status, body

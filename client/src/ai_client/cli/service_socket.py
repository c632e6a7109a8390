"""Asks the running service over its Unix socket."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

REMEDY = "start it with `ai-client serve`, or see `systemctl status ai-client`"


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


def ask(path: Path, method: str, target: str, *, timeout_s: float) -> tuple[int, dict[str, Any]]:
    """Status and JSON body of the service's answer. Raises ServiceUnreachableError."""
    connection = UnixConnection(path, timeout_s=timeout_s)
    try:
        connection.request(method, target)
        answer = connection.getresponse()
        body = json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError) as exc:
        reason = (exc.strerror if isinstance(exc, OSError) else None) or type(exc).__name__
        raise ServiceUnreachableError(f"the service does not answer on {path} ({reason}); {REMEDY}") from exc
    finally:
        connection.close()
    if not isinstance(body, dict):
        raise ServiceUnreachableError(f"something other than the service answers on {path}; see who owns it")
    return answer.status, body

"""Asks the running service over its Unix socket, without starting an interpreter for it."""

import json
import socket
from typing import Any

from ai_client_applier.errors import ApplyError

_MOST_BYTES = 1 << 20


def ask(path: str, method: str, target: str, *, timeout_s: float) -> tuple[int, dict[str, Any]]:
    """Status and JSON body of the answer. Raises ApplyError where there is none."""
    asked = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            connection.connect(path)
            connection.sendall(asked.encode())
            head, _, body = _read_all(connection).partition(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        answer = json.loads(body)
    except (OSError, ValueError, IndexError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
        raise ApplyError(path, f"the service does not answer ({reason})", "see its log") from error
    if not isinstance(answer, dict):
        raise ApplyError(path, "something else than the service answers", "see who owns it")
    return status, answer


def _read_all(connection: socket.socket) -> bytes:
    pieces: list[bytes] = []
    while (piece := connection.recv(1 << 16)) and sum(map(len, pieces)) < _MOST_BYTES:
        pieces.append(piece)
    return b"".join(pieces)

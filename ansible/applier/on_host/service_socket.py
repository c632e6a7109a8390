"""Asks the running service over its Unix socket, without starting an interpreter for it."""

import json
import socket
from typing import Any, Tuple

from .errors import ApplyError

_MOST_BYTES = 1 << 20


Answer = Tuple[int, bytes]


def ask(path: str, method: str, target: str, *, timeout_s: float) -> tuple[int, dict[str, Any]]:
    """Status and JSON body of the answer. Raises ApplyError where there is none."""
    status, body = converse(path, f"{method} {target}", timeout_s=timeout_s)
    try:
        answer = json.loads(body)
    except ValueError as error:
        raise ApplyError(path, "the service does not answer (ValueError)", "see its log") from error
    if not isinstance(answer, dict):
        raise ApplyError(path, "something other than the service answers", "see who owns it")
    return status, answer


def converse(where: str, asked: str, *, timeout_s: float, headers: str = "", body: str = "") -> Answer:
    """Status and body of the answer to a method and target, over a Unix socket or at `127.0.0.1:9090`.

    Raises ApplyError where there is none.
    """
    head = f"{asked} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    try:
        with _connected(where, timeout_s) as connection:
            connection.sendall(f"{head}{headers}\r\n{body}".encode())
            answer, _, content = _read_all(connection).partition(b"\r\n\r\n")
        return int(answer.split(b" ", 2)[1]), content
    except (OSError, ValueError, IndexError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
        raise ApplyError(where, f"the service does not answer ({reason})", "see its log") from error


def _connected(where: str, timeout_s: float) -> socket.socket:
    if not where.startswith("/"):
        host, _, port = where.rpartition(":")
        return socket.create_connection((host.strip("[]"), int(port)), timeout_s)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        connection.connect(where)
    except OSError:
        connection.close()
        raise
    return connection


def _read_all(connection: socket.socket) -> bytes:
    pieces: list[bytes] = []
    piece = connection.recv(1 << 16)
    while piece and sum(map(len, pieces)) < _MOST_BYTES:
        pieces.append(piece)
        piece = connection.recv(1 << 16)
    return b"".join(pieces)

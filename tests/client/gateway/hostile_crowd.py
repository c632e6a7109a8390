"""Ten thousand connections of callers who mean no good: idle, dribbling, not reading, half closed."""

from __future__ import annotations

import errno
import json
import socket
from pathlib import Path

HOSTS = ("127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5")
_STREAM = json.dumps(
    {
        "model": "gpt-4.1",
        "messages": [{"role": "user", "content": "hello"}],
        "stream": True,
        "max_tokens": 60,
    }
).encode()


def head(body: bytes, *, token: str) -> bytes:
    """Of a request over either socket."""
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        + f"Authorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    )


class Crowd:
    """Their sockets. `turned_away`: those that the service closed, or the kernel refused, as they came."""

    def __init__(self, *, port: int, path: Path, token: str) -> None:
        self._port = port
        self._path = str(path)
        self._request = head(_STREAM, token=token) + _STREAM
        self.sockets: list[socket.socket] = []
        self.dribblers: list[socket.socket] = []
        self.turned_away = 0

    def come(self, count: int) -> None:
        """So many more, a fifth of them over the Unix socket, of every kind."""
        for number in range(count):
            try:
                sock = self._connected(number)
                self._behave(sock, number // 5 % 5)
            except OSError as exc:
                if exc.errno not in (errno.EPIPE, errno.ECONNRESET, errno.EAGAIN):
                    raise
                self.turned_away += 1

    def _connected(self, number: int) -> socket.socket:
        place = number % (len(HOSTS) + 1)
        sock = socket.socket(socket.AF_INET if place < len(HOSTS) else socket.AF_UNIX)
        self.sockets.append(sock)
        sock.settimeout(20)
        if place < len(HOSTS):
            sock.bind((HOSTS[place], 0))
            sock.connect(("127.0.0.1", self._port))
        else:
            sock.connect(self._path)
        return sock

    def _behave(self, sock: socket.socket, kind: int) -> None:
        sock.settimeout(0)
        if kind == 1:
            sock.send(self._request[:7])
            self.dribblers.append(sock)
        elif kind == 2:
            sock.send(self._request)  # and reads nothing
        elif kind == 3:
            sock.send(self._request[:-1])
            sock.shutdown(socket.SHUT_WR)
        elif kind == 4:
            sock.send(b"\r\n")

    def dribble(self) -> None:
        """One byte more of those who send slowly."""
        for sock in self.dribblers:
            try:
                sock.send(b"x")
            except OSError:
                self.turned_away += 1

    def leave(self) -> None:
        """All of them."""
        for sock in self.sockets:
            sock.close()
        self.sockets.clear()
        self.dribblers.clear()

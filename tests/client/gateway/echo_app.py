"""An application that answers with what it saw of a request, and ways to send it bytes."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ai_client.gateway.http.asgi import Receive, Scope, Send, respond_json

PATIENCE_S = 10.0
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """The method, the path, the body and the headers, in JSON."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message.get("body", b"")
        more = message["more_body"]
    headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]]
    seen = [scope["method"], scope["path"], body.decode("latin-1"), headers]
    await respond_json(send, 200, seen)


async def sent(path: Path, pieces: Sequence[bytes]) -> bytes:
    """All that comes back for bytes, until the server closes."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        async with asyncio.timeout(PATIENCE_S):
            await loop.sock_connect(sock, str(path))
            # Where it has had enough, it said why before.
            with suppress(ConnectionError):
                for piece in pieces:
                    await loop.sock_sendall(sock, piece)
                    await asyncio.sleep(0)
            received = b""
            with suppress(ConnectionError):
                while piece := await loop.sock_recv(sock, 1 << 20):
                    received += piece
            return received


def statuses(answers: bytes) -> list[int]:
    """Those of all the answers."""
    return [int(found) for found in _STATUS.findall(answers)]


def echoes(answers: bytes) -> list[Any]:
    """What the application saw, a request an entry."""
    return [json.loads(line) for line in re.findall(rb"\r\n\r\n(\[\".*\]\])", answers)]

"""The head of an answer as it goes out."""

from __future__ import annotations

from pathlib import Path

from ai_client.gateway.asgi import Receive, Scope, Send, respond
from tests.client.gateway_socket import asked, served

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    del scope, receive
    headers = [(b"x-plain", b"as it is"), (b"x-model", b"a\r\nset-cookie: b\nc\0d")]
    await respond(send, 200, headers, b"body")


async def test_a_header_that_would_begin_another_line_stays_one_line(tmp_path: Path) -> None:
    """Names of models and tenants end up in headers, and may hold anything."""
    path = tmp_path / "gateway.sock"
    async with served(_app, path):
        head, _, body = (await asked(path, REQUEST)).partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 200 OK"
    assert lines[1].startswith(b"date: ")
    assert lines[2:] == [
        b"x-plain: as it is",
        b"x-model: a??set-cookie: b?c?d",
        b"content-length: 4",
        b"connection: close",
    ]
    assert body == b"body"

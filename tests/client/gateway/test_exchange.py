"""The head of an answer as it goes out."""

from __future__ import annotations

from pathlib import Path

import pytest

from ai_client.gateway.http.asgi import Receive, Scope, Send, respond
from tests.client.gateway.gateway_socket import asked, served

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
        b"server: ai-client",
        b"x-plain: as it is",
        b"x-model: a??set-cookie: b?c?d",
        b"content-length: 4",
        b"connection: close",
    ]
    assert body == b"body"


async def _odd(scope: Scope, receive: Receive, send: Send) -> None:
    del receive
    await respond(send, int(scope["path"][1:]), [], b"" if scope["path"] == "/204" else b"body")


@pytest.mark.parametrize("status", [200, 204, 304, 404, 418, 498, 499, 529, 599])
async def test_a_status_that_nobody_has_named_goes_out_all_the_same(tmp_path: Path, status: int) -> None:
    """Providers answer 498, 499 and 529; 204 and 304 have no body, and no length of one."""
    path = tmp_path / "gateway.sock"
    async with served(_odd, path):
        answer = await asked(path, REQUEST.replace(b"GET /", b"GET /%d" % status))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert body == (b"" if status in (204, 304) else b"body")
    assert (b"content-length" in head) == (status not in (204, 304))

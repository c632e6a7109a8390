"""The head of an answer as it goes out."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ai_client.gateway.http.asgi import Receive, Scope, Send, respond
from tests.client.gateway.echo_app import PATIENCE_S
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


class _Pieces:
    """An application that sends pieces at once, and then waits, fails or ends."""

    def __init__(self, *, ends: str) -> None:
        self.ends = ends
        self.may_end = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (b"one", b"two"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        if self.ends == "with an error":
            raise ValueError("the application fails")
        if self.ends == "later":
            await self.may_end.wait()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def test_what_is_sent_at_once_goes_out_in_one_packet(tmp_path: Path) -> None:
    """A short stream costs its caller one wake-up: head, pieces and end."""
    path = tmp_path / "gateway.sock"
    async with served(_Pieces(ends="at once"), path):
        packets = await _packets(path, until=b"0\r\n\r\n")
    assert len(packets) == 1
    assert packets[0].endswith(b"\r\n\r\n6\r\nonetwo\r\n0\r\n\r\n")


async def test_what_was_sent_does_not_wait_for_what_comes_later(tmp_path: Path) -> None:
    """Of a stream that goes on, each piece is passed on as it comes."""
    path, app = tmp_path / "gateway.sock", _Pieces(ends="later")
    async with served(app, path):
        packets = await _packets(path, until=b"6\r\nonetwo\r\n")
        assert len(packets) == 1
        app.may_end.set()


async def test_an_answer_that_breaks_off_shows_what_was_sent_and_no_second_answer(tmp_path: Path) -> None:
    """The caller must not take a 500 of ours for a part of the stream, nor the stream for whole."""
    path = tmp_path / "gateway.sock"
    async with served(_Pieces(ends="with an error"), path):
        packets = await _packets(path, until=b"never")
    answer = b"".join(packets)
    assert answer.endswith(b"6\r\nonetwo\r\n")
    assert answer.count(b"HTTP/1.1") == 1


async def _packets(path: Path, *, until: bytes) -> list[bytes]:
    """What each read brings, up to the one that ends with `until`, or to the connection's end."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    packets = []
    async with asyncio.timeout(PATIENCE_S):
        while (piece := await reader.read(65536)) and not piece.endswith(until):
            packets.append(piece)
    writer.close()
    return [*packets, piece] if piece else packets

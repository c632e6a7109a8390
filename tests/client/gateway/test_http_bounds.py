"""Callers who send too slowly, say nothing or never read end by themselves, and hold nothing meanwhile."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from ai_client.gateway.http.asgi import Receive, Scope, Send
from ai_client.gateway.http.server import Server
from ai_client.gateway.http.shared import Bounds
from tests.client.gateway.echo_app import PATIENCE_S, echo, statuses
from tests.client.gateway.gateway_socket import served
from tests.client.service_rig import until

HOST = b"Host: x\r\n"
WHOLE = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
FOR_EVER_S = 3600.0


async def end_of(path: Path, *pieces: bytes) -> bytes:
    """What comes back until the server closes; a piece is sent when the one before it has been answered, or at once."""
    reader, writer = await asyncio.open_unix_connection(path)
    async with asyncio.timeout(PATIENCE_S):
        answers = b""
        for piece in pieces:
            writer.write(piece)
            if piece == WHOLE:
                answers += await reader.readuntil(b"]]")
        answers += await reader.read()
    writer.close()
    return answers


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        pytest.param([], [408], id="nothing at all"),
        pytest.param([b"GET /"], [408], id="a part of a head"),
        pytest.param([b"\r\n"], [408], id="one newline"),
        pytest.param(
            [b"POST / HTTP/1.1\r\nContent-Length: 5\r\n" + HOST + b"\r\nhe"], [408], id="a part of a body"
        ),
        pytest.param([WHOLE, b"\r\n"], [200, 408], id="one newline after an answer"),
        pytest.param([WHOLE, b"GET /"], [200, 408], id="a part of a head after an answer"),
    ],
)
async def test_a_request_that_does_not_arrive_ends_its_connection(
    tmp_path: Path, pieces: list[bytes], expected: list[int]
) -> None:
    """From its first byte on; with a 408, where a request had begun or none ever came."""
    path = tmp_path / "socket"
    bounds = Bounds(arrival_s=0.3, idle_s=FOR_EVER_S, tick_s=0.05)
    async with served(echo, path, bounds) as server:
        assert statuses(await end_of(path, *pieces)) == expected
        await until(lambda: server.connections == 0, what="the connection to be gone")


async def test_a_connection_that_is_idle_is_closed(tmp_path: Path) -> None:
    """Without a word: its caller may have been about to send."""
    path = tmp_path / "socket"
    async with served(echo, path, Bounds(arrival_s=FOR_EVER_S, idle_s=0.3, tick_s=0.05)):
        assert statuses(await end_of(path, WHOLE)) == [200]


class Flood:
    """Answers without end, and notes how it was ended."""

    def __init__(self) -> None:
        self.is_cancelled = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
        except asyncio.CancelledError:
            self.is_cancelled = True
            raise


async def flooded(path: Path, server: Server, app: Flood) -> None:
    """Ask for the flood, read nothing, and wait for the server to end it."""
    with socket.socket(socket.AF_UNIX) as caller:
        caller.setblocking(False)
        await asyncio.get_running_loop().sock_connect(caller, str(path))
        caller.send(WHOLE)
        await until(lambda: app.is_cancelled, what="the answer to be ended")
        await until(lambda: server.connections == 0, what="the connection to be gone")
        assert server.requests_in_flight == 0


async def test_an_answer_that_nobody_reads_is_ended(tmp_path: Path) -> None:
    """What it holds upstream is free again."""
    app, path = Flood(), tmp_path / "socket"
    async with served(app, path, Bounds(unread_s=0.3, tick_s=0.05)) as server:
        await flooded(path, server, app)


async def test_patience_with_those_who_do_not_read_may_change(tmp_path: Path) -> None:
    """It is asked for at each look: whoever decides knows whether others wait."""
    app, path = Flood(), tmp_path / "socket"
    async with served(app, path, Bounds(unread_s=FOR_EVER_S, tick_s=0.05)) as server:
        server.unread_s = lambda: 0.1
        await flooded(path, server, app)


async def test_answers_that_nobody_takes_have_a_bound_together(tmp_path: Path) -> None:
    """The caller who takes least goes; who is within the bound gets its answer whole, however late it reads."""
    path, megabyte = tmp_path / "socket", 2**20

    async def as_asked(scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        body = bytes(int(scope["path"][1:]) * megabyte)
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    bounds = Bounds(unread_s=FOR_EVER_S, tick_s=0.05, unread_bytes=4 * megabyte)
    async with served(as_asked, path, bounds) as server:
        callers = [await asyncio.open_unix_connection(path, limit=1024) for _ in range(3)]
        for (_, writer), size in zip(callers, (1, 8, 2), strict=True):
            writer.write(b"GET /%d HTTP/1.1\r\n" % size + HOST + b"Connection: close\r\n\r\n")
        await until(lambda: server.refused == 1, what="the one who takes least to go")
        taken = []
        for reader, writer in callers:
            async with asyncio.timeout(PATIENCE_S):
                taken.append(len((await reader.read()).partition(b"\r\n\r\n")[2]))
            writer.close()
        assert server.refused == 1
    assert (taken[0], taken[2]) == (megabyte, 2 * megabyte)
    assert taken[1] < 8 * megabyte


async def test_requests_that_are_sent_ahead_without_end_are_not_read(tmp_path: Path) -> None:
    """Behind one that is not answered yet: some wait in the server, the others with their caller."""
    path, is_answered = tmp_path / "socket", asyncio.Event()

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        await is_answered.wait()
        await echo(scope, receive, send)

    async with served(waits, path) as server:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX) as caller:
            caller.setblocking(False)
            await loop.sock_connect(caller, str(path))
            sending = loop.create_task(loop.sock_sendall(caller, WHOLE * 200_000))
            await until(lambda: server.requests_in_flight == 1, what="the first request")
            assert server._state is not None
            ((connection, transport),) = server._state.open.items()
            await until(lambda: not transport.is_reading(), what="the server to stop reading")
            assert not sending.done()
            assert len(connection._messages) < 10_000
            sending.cancel()
            is_answered.set()

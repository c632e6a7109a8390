"""What a fault of the gateway's own does: a 500 for that request, counted apart from what the upstream answers."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

from ai_client.gateway.asgi import Receive, Scope, Send, respond_json
from ai_client.gateway.server import Server

REQUEST = b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    del receive
    if scope["path"] == "/broken":
        raise KeyError("a fault")
    await respond_json(send, 503, {"error": "the upstream's"})


async def test_a_fault_of_the_services_own_is_a_500_and_is_counted(tmp_path: Path) -> None:
    """An answer that the application gives is no fault, whatever its status."""
    path = str(tmp_path / "gateway.sock")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        listening.setblocking(False)
        server = Server(_app, wall_clock=time.time)
        await server.start([listening])
        answers = [await _ask(path, target) for target in (b"/broken", b"/fine", b"/broken")]
        await server.drain(limit_s=1)
    assert [answer.split(b" ", 2)[1] for answer in answers] == [b"500", b"503", b"500"]
    assert server.faults == 2


async def _ask(path: str, target: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(REQUEST % target)
    answer = await reader.read()
    writer.close()
    return answer

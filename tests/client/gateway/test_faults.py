"""What a fault of the gateway's own does: a 500 for that request, counted apart from what the upstream answers."""

from __future__ import annotations

from pathlib import Path

from ai_client.gateway.http.asgi import Receive, Scope, Send, respond_json
from tests.client.gateway.gateway_socket import asked, served

REQUEST = b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    del receive
    if scope["path"] == "/broken":
        raise KeyError("a fault")
    await respond_json(send, 503, {"error": "the upstream's"})


async def test_a_fault_of_the_services_own_is_a_500_and_is_counted(tmp_path: Path) -> None:
    """An answer that the application gives is no fault, whatever its status."""
    path = tmp_path / "gateway.sock"
    async with served(_app, path) as server:
        answers = [await asked(path, REQUEST % target) for target in (b"/broken", b"/fine", b"/broken")]
    assert [answer.split(b" ", 2)[1] for answer in answers] == [b"500", b"503", b"500"]
    assert server.faults == 2

"""A request that reaches a process which has handed over: the next one serves it for whoever sent it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ai_client.contract.request import CacheMode, Request, Response
from ai_client.gateway.app.forwarder import Forwarder
from ai_client.gateway.http.asgi import UID_MARK, Message, Receive, Scope, Send, respond
from ai_client.settings import TenantSettings
from tests.client.gateway.bare_app import CHAT, bare_app
from tests.client.gateway.gateway_socket import served

BODY = b'{"model": "gpt-4.1", "messages": [{"role": "user", "content": "hello"}]}'
WEB = TenantSettings(name="web", uid=4242, priority=2)


class _Upstream:
    """Keeps what it is asked."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    async def send(self, request: Request) -> Response:
        self.requests.append(request)
        return Response(status=200, headers={}, body=b"{}", model=request.model)

    async def stream(self, request: Request) -> Any:
        raise AssertionError(f"nobody asked for a stream: {request}")


async def test_the_bytes_of_an_answers_headers_come_back_as_they_are(tmp_path: Path) -> None:
    """They have no encoding that all agree on; of this service's own servers it is UTF-8."""
    value = "attachment; filename=€é.mp3".encode()
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def answer(_: Scope, __: Receive, send: Send) -> None:
        await respond(send, 200, [(b"content-disposition", value)], b"{}")

    async with served(answer, tmp_path / "socket"):
        forwarder = Forwarder(tmp_path / "socket")
        await forwarder.forward(send, method="GET", path="/v1/files/file-1/content", headers={}, body=b"")
        await forwarder.aclose()
    assert dict(sent[0]["headers"])[b"content-disposition"] == value


async def test_the_next_process_serves_the_caller_and_not_whoever_passes_on(tmp_path: Path) -> None:
    """Tenant, priority and what its headers say are the caller's; what passes it on is an operator."""
    before, after, sent = _Upstream(), _Upstream(), list[Message]()

    async def receive() -> Message:
        return {"type": "http.request", "body": BODY, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    successor = bare_app(after, tenants=(WEB,), operators=frozenset({os.getuid()}))
    async with served(successor, tmp_path / "socket"):
        app, forwarder = bare_app(before, tenants=(WEB,)), Forwarder(tmp_path / "socket")
        app.hand_over(forwarder)
        headers = [(b"x-ai-cache", b"no-store"), (b"x-ai-deadline", b"30")]
        await app({**CHAT, "headers": headers, "client": (UID_MARK, 4242)}, receive, send)
        await forwarder.aclose()
    assert sent[0]["status"] == 200
    assert before.requests == []
    (request,) = after.requests
    assert (request.tenant, request.priority, request.cache_mode) == ("web", 2, CacheMode.NO_STORE)
    assert request.deadline_s is not None
    assert 0 < request.deadline_s <= 30

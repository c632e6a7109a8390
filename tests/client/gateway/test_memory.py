"""What a request leaves behind in the gateway: nothing that waits for the collector of cycles."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from typing import Any

import pytest

from ai_client.contract.request import Request, Response
from ai_client.gateway.app.app import GatewayApp
from ai_client.gateway.http.asgi import Message
from tests.client.gateway.bare_app import CHAT, bare_app

BODY = json.dumps({"model": "gpt-4.1", "messages": [{"role": "user", "content": "hello"}]}).encode()


class _Upstream:
    async def send(self, request: Request) -> Response:
        await asyncio.sleep(0)
        return Response(status=200, headers={}, body=b"{}", model=request.model)

    async def stream(self, request: Request) -> Any:
        raise AssertionError(f"nobody asked for a stream: {request}")


@pytest.fixture
def app() -> GatewayApp:
    """A gateway whose upstream answers at once."""
    return bare_app(_Upstream())


async def test_an_answered_request_is_freed_at_once(app: GatewayApp) -> None:
    """Its task holds its context, that the call, and the call must not hold the task: memory would grow between
    collections, and each would cost time."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": BODY, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    gc.collect()
    gc.disable()
    try:
        task = asyncio.create_task(app(dict(CHAT), receive, send))
        is_there = weakref.ref(task)
        await task
        del task
        await asyncio.sleep(0)
        assert is_there() is None
    finally:
        gc.enable()
    assert [message.get("status", message.get("body")) for message in sent] == [200, b"{}"]

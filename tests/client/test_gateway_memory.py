"""What a request leaves behind in the gateway: nothing that waits for the collector of cycles."""

from __future__ import annotations

import asyncio
import gc
import json
import time
import weakref
from typing import Any

import pytest

from ai_client.gateway.app import GatewayApp, Runtime, Users
from ai_client.gateway.asgi import Message, Scope
from ai_client.gateway.callers import UID_MARK, Doorkeeper, HostCheck
from ai_client.gateway.own_limits import OwnLimits
from ai_client.gateway.pacing import Pacer
from ai_client.options import Limits
from ai_client.request import Request, Response
from ai_client.settings import GatewaySettings

BODY = json.dumps({"model": "gpt-4.1", "messages": [{"role": "user", "content": "hello"}]}).encode()
SCOPE: Scope = {
    "type": "http",
    "http_version": "1.1",
    "method": "POST",
    "path": "/v1/chat/completions",
    "query_string": b"",
    "headers": [],
    "client": (UID_MARK, 0),
}


class _Upstream:
    async def send(self, request: Request) -> Response:
        await asyncio.sleep(0)
        return Response(status=200, headers={}, body=b"{}", model=request.model)

    async def stream(self, request: Request) -> Any:
        raise AssertionError(f"nobody asked for a stream: {request}")


class _Control:
    async def reload(self) -> tuple[bool, dict[str, Any]]:
        return True, {}

    async def health(self) -> dict[str, Any]:
        return {}

    async def status(self) -> dict[str, Any]:
        return {}


@pytest.fixture
def app() -> GatewayApp:
    """A gateway whose upstream answers at once."""
    none_used = {"window_requests": 0, "window_tokens": 0}
    runtime = Runtime(
        upstream=_Upstream(),
        doorkeeper=Doorkeeper(tenants=(), operators=frozenset()),
        host_check=HostCheck(GatewaySettings()),
        default_model="gpt-4.1",
        max_body_bytes=1000,
        users=Users(),
        own_limits=OwnLimits(Limits(), look=lambda: none_used, clock=time.monotonic),
    )
    return GatewayApp(runtime, control=_Control(), pacer=Pacer(Limits(), clock=time.monotonic))


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
        task = asyncio.create_task(app(dict(SCOPE), receive, send))
        is_there = weakref.ref(task)
        await task
        del task
        await asyncio.sleep(0)
        assert is_there() is None
    finally:
        gc.enable()
    assert [message.get("status", message.get("body")) for message in sent] == [200, b"{}"]

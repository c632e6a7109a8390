"""What a request leaves behind in the gateway: nothing that waits for the collector of cycles."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from pathlib import Path
from typing import Any

import pytest

from ai_client.cache.response_cache import ResponseCache
from ai_client.client import AIAPIClient
from ai_client.contract.request import Request, Response
from ai_client.gateway.app.app import GatewayApp
from ai_client.gateway.app.incoming import IncomingCall
from ai_client.gateway.http.asgi import Message
from ai_client.transport.base import WireRequest
from tests.client.gateway.bare_app import CHAT, bare_app
from tests.client.service_rig import TEST_KEY, until
from tests.client.transport.upstreams import Connection, Upstream, serving

HANGS = b"hangs"
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


def _answer(status: int, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} Said\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


_DELTA = b'data: {"choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n'
_STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n" + _DELTA
ENDS: dict[str, bytes] = {
    "answered": _STREAM + b"data: [DONE]\n\n",
    "refused": _answer(400, b'{"error": {"message": "no"}}'),
    "key refused": _answer(401, b'{"error": {"message": "no"}}'),
    "failed": _answer(500, b"{}"),
    "no answer": _answer(200, b"{}"),
    "cut": _STREAM,
    "no HTTP": b"garbage\r\n\r\n",
    "lost": b"",
    "too late": HANGS,
    "left": HANGS,
}


@pytest.mark.parametrize("how", ["whole", "stream", "merged"])
@pytest.mark.parametrize("end", ENDS)
async def test_whatever_ends_a_call_its_body_is_freed_at_once(tmp_path: Path, end: str, how: str) -> None:
    """aio-libs/aiohttp#10548, python/cpython#109534: an error holds the frames that it came through.

    Held by one of them, forty refused requests of nine megabytes were a gigabyte, which no bound on bodies counts.
    """

    async def serve(connection: Connection) -> None:
        while await connection.read_request():
            if ENDS[end] is HANGS:
                await asyncio.Event().wait()
            if not ENDS[end]:
                connection.reset()
                return
            await connection.send(ENDS[end])
            if b"connection: close" in ENDS[end]:
                return

    async with serving(serve) as upstream:
        cache = ResponseCache(tmp_path, scope="tests", max_bytes=10_000_000)
        client = AIAPIClient(TEST_KEY, f"http://localhost:{upstream.port}/v1", cache=cache)
        app = bare_app(client)
        await _ended(app, end, how, upstream)
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            for _ in range(2):
                await _ended(app, end, how, upstream)
            await asyncio.sleep(0)
            gc.collect()
            left = [each for each in gc.garbage if isinstance(each, Request | WireRequest | IncomingCall)]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
        await client.aclose()
    assert not left, left


async def _ended(app: GatewayApp, end: str, how: str, upstream: Upstream) -> None:
    fields: dict[str, Any] = {
        "messages": [{"role": "user", "content": end}],
        "temperature": 0,
        "stream": how == "stream",
    }
    if how == "merged":
        fields = {"input": [end]}
    body = json.dumps({"model": "gpt-4.1"} | fields).encode()
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"x-ai-merge", b"true")] if how == "merged" else []
    if end != "left":
        headers.append((b"x-ai-deadline", b"0.1"))
    path = "/v1/embeddings" if how == "merged" else CHAT["path"]
    before = len(upstream.requests)
    task = asyncio.create_task(app({**CHAT, "path": path, "headers": headers}, receive, send))
    if end == "left":
        await until(lambda: len(upstream.requests) > before, what="the request upstream")
        task.cancel()
    await asyncio.wait([task])
    assert sent[0]["status"] >= 400 or (how == "stream" and ENDS[end].startswith(_STREAM))

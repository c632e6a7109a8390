"""What `request_timeout_buffer` gives: a stream that has begun may reach a slow caller after the deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from ai_client.contract.request import Request, Response
from ai_client.gateway.app.app import DEADLINE_GRACE_S
from ai_client.gateway.http.asgi import Message
from tests.client.gateway.bare_app import CHAT, bare_app

BODY = b'{"model": "gpt-4.1", "messages": [{"role": "user", "content": "hello"}], "stream": true}'
DEADLINE_S = 0.05


class _Stream:
    """Two chunks, both there at once."""

    status = 200
    headers: Mapping[str, str] = {}
    model = "gpt-4.1"
    request_id = "one"
    cached = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"first"
        yield b"second"

    async def aclose(self) -> None:
        pass


class _Upstream:
    async def send(self, request: Request) -> Response:
        raise AssertionError(f"nobody asked for a whole answer: {request}")

    async def stream(self, request: Request) -> Any:
        return _Stream()


@pytest.mark.parametrize(("buffer_s", "is_whole"), [(0.0, False), (60.0, True)])
async def test_a_slow_reader_has_the_buffer(buffer_s: float, is_whole: bool) -> None:
    """The caller takes nothing until the deadline and its grace are over."""
    sent: list[bytes] = []
    takes = asyncio.Event()
    asyncio.get_running_loop().call_later(DEADLINE_S + DEADLINE_GRACE_S + 0.1, takes.set)

    async def receive() -> Message:
        return {"type": "http.request", "body": BODY, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message.get("body", b""))
        if message.get("body") == b"first":
            await takes.wait()

    headers = [(b"x-ai-deadline", str(DEADLINE_S).encode())]
    await bare_app(_Upstream(), deadline_buffer_s=buffer_s)({**CHAT, "headers": headers}, receive, send)
    assert (b"second" in sent) is is_whole
    assert any(b"deadline_exceeded" in part for part in sent) is not is_whole

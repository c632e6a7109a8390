"""One service between a caller and a raw upstream, which answers as a test tells it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx

from ai_client.testing import Simulator
from tests.client.service_rig import running_service
from tests.client.transport.upstreams import Connection, serving


@dataclass
class Stage:
    """A caller, and an upstream that answers as it is told."""

    client: httpx.AsyncClient
    answer: bytes = b""
    requests: list[bytes] = field(default_factory=list)

    def whole(
        self, content: object, *, kind: str = "application/json", status: int = 200, head: str = ""
    ) -> None:
        """The same whole answer to everything; None: without a body. `head` has more lines of headers."""
        body = (
            content
            if isinstance(content, bytes)
            else b""
            if content is None
            else json.dumps(content).encode()
        )
        length = "" if status == 204 else f"content-length: {len(body)}\r\n"
        self.answer = f"HTTP/1.1 {status} Said\r\ncontent-type: {kind}\r\n{length}{head}\r\n".encode() + body

    def stream(self, *events: dict[str, Any], end: str = "", kind: str = "text/event-stream") -> None:
        """A stream, and the connection's end."""
        text = "".join(f"data: {json.dumps(each)}\n\n" for each in events) + end
        head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n"
        self.answer = (head + text).encode()


@dataclass
class _Base:
    base_url: str


@asynccontextmanager
async def staged(folder: Path, extra: str = "[models]\nfallback =\n") -> AsyncIterator[Stage]:
    """The service, its caller and its upstream."""
    made: list[Stage] = []

    async def serve(connection: Connection) -> None:
        while await connection.read_request():
            await connection.send(made[0].answer)
            if b"connection: close" in made[0].answer:
                return

    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(serving(serve))
        place = cast("Simulator", _Base(f"http://localhost:{upstream.port}/v1"))
        rig = await stack.enter_async_context(
            running_service(folder, place, extra=f"rate_limit = 60000\n{extra}")
        )
        client = await stack.enter_async_context(rig.client())
        made.append(Stage(client, requests=upstream.requests))
        yield made[0]

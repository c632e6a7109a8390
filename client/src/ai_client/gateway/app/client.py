"""What the gateway needs of the client: whole answers and streams."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from ai_client.contract.request import Request, Response


class StreamedAnswer(Protocol):
    """An answer that comes as raw SSE bytes; it must be closed, whatever happens."""

    status: int
    headers: Mapping[str, str]
    model: str
    request_id: str
    cached: bool

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def aclose(self) -> None: ...


class Client(Protocol):
    """The public client, as the gateway uses it. Raises AIClientError."""

    async def send(self, request: Request) -> Response: ...

    async def stream(self, request: Request) -> StreamedAnswer: ...

"""A streamed answer on its way through."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping

from ai_client.errors import ConnectionLostError
from ai_client.request import Usage
from ai_client.sse import StreamTail
from ai_client.transport.base import WireStream


class StreamResponse:
    """An async iterator of the raw SSE bytes, chunk by chunk as the upstream sent them.

    Close it (`aclose`, or `async with`) unless it was read to its end. `usage` is known after the end.
    """

    def __init__(self, wire: WireStream, *, model: str, request_id: str, on_end: Callable[[], None]) -> None:
        self.status: int = wire.status
        self.headers: Mapping[str, str] = wire.headers
        self.model = model
        self.request_id = request_id
        self.cached = False
        self.attempts = 1
        self.usage: Usage | None = None
        self.cost_usd: float | None = None
        self._wire = wire
        self._tail = StreamTail()
        self._chunks = wire.chunks()
        self._on_end = on_end
        self._ended = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._ended:
            raise StopAsyncIteration
        try:
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            await self.aclose()
            if not self._tail.complete:
                raise ConnectionLostError(
                    "upstream",
                    "ended the stream before its end marker",
                    sent=True,
                    request_id=self.request_id,
                ) from None
            raise
        except BaseException:
            await self.aclose()
            raise
        self._tail.feed(chunk)
        return chunk

    async def aclose(self) -> None:
        """Ends it, wherever it is: before the end, the connection to the upstream is dropped."""
        if self._ended:
            return
        self._ended = True
        self.usage = self._tail.usage
        try:
            await self._wire.aclose()
        finally:
            self._on_end()

    async def __aenter__(self) -> StreamResponse:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

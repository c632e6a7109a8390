"""A streamed answer on its way through: the upstream's end of it, and what each caller reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Protocol, Self

from ai_client.attempt import Attempt
from ai_client.call import Call
from ai_client.clock import Clock
from ai_client.errors import AIClientError, ConnectionLostError, ServerError
from ai_client.request import Usage
from ai_client.sse import StreamTail, UsageEventFilter
from ai_client.transport.base import WireStream


class ChunkSource(Protocol):
    """What a caller's `StreamResponse` reads from."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def __anext__(self) -> bytes: ...

    async def aclose(self) -> None: ...


class UpstreamStream:
    """One open stream from the upstream; it ends its attempt when it ends, however that is.

    Ends with StopAsyncIteration where the answer was whole, else with one of our errors.
    """

    def __init__(self, wire: WireStream, attempt: Attempt, call: Call, *, clock: Clock) -> None:
        self.status = wire.status
        self.headers: Mapping[str, str] = wire.headers
        self.model = call.model
        self.call = call
        self.usage: Usage | None = None
        self.cost_usd: float | None = None
        self.first_byte_s: float | None = None
        self._wire = wire
        self._attempt = attempt
        self._clock = clock
        self._tail = StreamTail()
        self._filter = UsageEventFilter() if call.usage_asked else None
        self._is_over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while not self._is_over:
            try:
                chunk = await (self._wire.read() if self.call.deadline_at_s is None else self._read_in_time())
            except BaseException as error:
                await self._end(error)
                raise
            if not chunk:
                return await self._finish()
            if self.first_byte_s is None:
                self._note_first_byte()
            self._tail.feed(chunk)
            passed = chunk if self._filter is None else self._filter.feed(chunk)
            if passed:
                return passed
        raise StopAsyncIteration

    async def _read_in_time(self) -> bytes:
        try:
            async with asyncio.timeout(self.call.remaining_s(self._clock.monotonic())):
                return await self._wire.read()
        except TimeoutError:
            raise self.call.deadline_error("upstream") from None

    async def aclose(self) -> None:
        """Ends it before its end: the connection is dropped, what it cost is not known."""
        if not self._is_over:
            await self._end(asyncio.CancelledError())

    def _note_first_byte(self) -> None:
        self.first_byte_s = self._clock.monotonic() - self._attempt.permit.sent_at_s
        self._attempt.note_first_byte(self.first_byte_s)

    async def _finish(self) -> bytes:
        """The upstream has no more. Was that all of it?"""
        rest = b"" if self._filter is None else self._filter.rest()
        trouble: AIClientError | None = None
        if self._tail.says_error:
            trouble = ServerError("upstream", "broke the stream off with an error event", status=502)
        elif not self._tail.is_complete:
            trouble = ConnectionLostError("upstream", "ended the stream before its end marker", sent=True)
        await self._end(trouble)
        if trouble is not None:
            raise trouble
        if rest:
            return rest
        raise StopAsyncIteration

    async def _end(self, error: BaseException | None) -> None:
        self._is_over = True
        if isinstance(error, AIClientError):
            error.request_id = self.call.request_id
        self.usage = self._tail.usage
        if error is None:
            self.cost_usd = self._attempt.answered(
                self.usage, headers=self.headers, first_byte_s=self.first_byte_s or 0.0
            )
        else:
            self._attempt.failed(error)
        await self._wire.aclose()


class Replay:
    """A recorded stream, from the cache."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        body, self._body = self._body, b""
        if not body:
            raise StopAsyncIteration
        return body

    async def aclose(self) -> None:
        self._body = b""


class StreamResponse:
    """An async iterator of the raw SSE bytes, chunk by chunk as the upstream sent them.

    Close it (`aclose`, or `async with`) unless it was read to its end. `usage` and `cost_usd` are known after
    the end. `cached`: another caller's stream, or a recorded one; it cost nothing.
    """

    def __init__(
        self,
        source: ChunkSource,
        *,
        status: int,
        headers: Mapping[str, str],
        call: Call,
        cached: bool,
        on_end: Callable[[StreamResponse, BaseException | None], None],
    ) -> None:
        self.status = status
        self.headers = headers
        self.model = call.model
        self.request_id = call.request_id
        self.cached = cached
        self.usage: Usage | None = None
        self.cost_usd: float | None = 0.0 if cached else None
        self.call = call
        self._source = source
        self._on_end = on_end
        self._is_over = False

    @property
    def attempts(self) -> int:
        return self.call.attempts

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._is_over:
            raise StopAsyncIteration
        try:
            return await self._source.__anext__()
        except StopAsyncIteration:
            await self._end(None)
            raise
        except BaseException as error:
            await self._end(error)
            raise

    async def aclose(self) -> None:
        """Ends it, wherever it is. Twice is once."""
        if not self._is_over:
            await self._end(asyncio.CancelledError())

    async def _end(self, error: BaseException | None) -> None:
        self._is_over = True
        try:
            await self._source.aclose()
        finally:
            self._on_end(self, error)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

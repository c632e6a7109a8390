"""A streamed answer on its way through: the upstream's end of it, and what each caller reads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Self, TypeAlias

from ai_client.calls.attempt import Attempt
from ai_client.calls.call import Call
from ai_client.contract.apis import Family, api_of
from ai_client.contract.request import Usage
from ai_client.dialects.body_reader import read_body
from ai_client.dialects.error_answers import error_within_answer
from ai_client.dialects.stream_reader import StreamReader
from ai_client.dialects.typed_streams import TypedStreamReader
from ai_client.dialects.upper_bound import outputs_of
from ai_client.errors import AIClientError, ConnectionLostError, MalformedResponseError
from ai_client.platform.clock import Clock
from ai_client.sharing.stream_flight import ChunkSource
from ai_client.transport.base import MOST_ANSWER_BYTES, WireStream

Reopen: TypeAlias = "Callable[[AIClientError], Awaitable[UpstreamStream]]"


class UpstreamStream:
    """One open stream from the upstream; it ends its attempt when it ends, however that is.

    Ends with StopAsyncIteration where the answer was whole, else with one of our errors. What fails before any of the
    answer was handed on, comments aside, may be opened anew by whoever opened it (`reopen`); its reader sees one.
    """

    def __init__(
        self, wire: WireStream, attempt: Attempt, call: Call, *, clock: Clock, heads_wait_s: float
    ) -> None:
        self.status = wire.status
        self.headers: Mapping[str, str] = wire.headers
        self.model = call.model
        self.call = call
        #: What this call used, and what the upstream told, of whatever call.
        self.usage: Usage | None = None
        self.told_usage: Usage | None = None
        self.cost_usd: float | None = None
        self.first_byte_s: float | None = None
        #: Opens another stream in place of one that failed with an error; raises what the call ends with.
        self.reopen: Reopen | None = None
        self._wire = wire
        self._attempt = attempt
        self._clock = clock
        self._heads_wait_s = heads_wait_s
        family = api_of(call.request.endpoint).family
        self._reader: StreamReader | TypedStreamReader = (
            StreamReader(endpoint=call.request.endpoint, hides_usage=call.hides_usage)
            if family is Family.OPENAI
            else TypedStreamReader(
                family,
                content_type=wire.headers.get("content-type", ""),
                endpoint=call.request.endpoint,
            )
        )
        self._note_stored: Callable[[Call, str], None] | None = None
        #: What went wrong, of which the upstream has told the caller itself.
        self.trouble: AIClientError | None = None
        self._choices = outputs_of(call.request.body)
        self._first = b""
        self._bytes = 0
        self._is_over = False
        #: What is read while heads wait, and until when they do.
        self._reading: asyncio.Future[bytes] | None = None
        self._heads_until_s: float | None = None

    @property
    def has_begun(self) -> bool:
        """Whether a part of the answer came, so that it is too late for another try."""
        return self._reader.has_begun

    async def begin(self) -> None:
        """Reads on until there is something to hand on. Raises what is wrong with the stream, if that comes first."""
        try:
            self._first = await self._next()
        except StopAsyncIteration:
            self._first = b""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._first:
            first, self._first = self._first, b""
            return first
        try:
            return await self._next()
        except AIClientError as error:
            if self.has_begun or self.reopen is None:
                raise
            self._become(await self.reopen(error))
        return await self.__anext__()

    async def _next(self) -> bytes:
        while not self._is_over:
            try:
                is_plain = self._reading is None and not self._reader.is_holding
                chunk = await (self._read() if is_plain else self._read_behind_heads())
                if chunk is None:
                    return self._reader.let_go()
                passed = self._take(chunk) if chunk else b""
            except BaseException as error:
                await self._end(error)
                raise
            if not chunk or (self._reader.is_broken and not passed):
                return await self._finish()
            if passed:
                return passed
        raise StopAsyncIteration

    def _take(self, chunk: bytes) -> bytes:
        if self.first_byte_s is None:
            self._note_first_byte()
        self._bytes += len(chunk)
        if self._bytes > MOST_ANSWER_BYTES:
            raise MalformedResponseError("upstream", f"sent a stream of over {MOST_ANSWER_BYTES} bytes")
        passed = self._reader.feed(chunk)
        if self._note_stored is not None:
            self._look_for_id()
        return passed

    def _read(self) -> Awaitable[bytes]:
        return self._wire.read() if self.call.deadline_at_s is None else self._read_in_time()

    async def _read_behind_heads(self) -> bytes | None:
        """The next bytes; None where none came while the heads could wait. They are read on then."""
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._read())
        if self._reader.is_holding:
            now_s = self._clock.monotonic()
            if self._heads_until_s is None:
                self._heads_until_s = now_s + self._heads_wait_s
            await asyncio.wait((self._reading,), timeout=max(0.0, self._heads_until_s - now_s))
            if not self._reading.done():
                return None
        chunk = await self._reading
        self._reading = None
        return chunk

    async def _read_in_time(self) -> bytes:
        try:
            async with asyncio.timeout(self.call.remaining_s(self._clock.monotonic())):
                return await self._wire.read()
        except TimeoutError:
            raise self.call.deadline_error("upstream") from None

    async def aclose(self) -> None:
        """Ends it before its end: the connection is dropped, and what passed is booked."""
        if not self._is_over:
            await self._end(asyncio.CancelledError())

    def _become(self, other: UpstreamStream) -> None:
        """Goes on as another one, which replaces it."""
        self.status, self.headers, self.model = other.status, other.headers, other.model
        self.first_byte_s, self._bytes = other.first_byte_s, other._bytes
        self._wire, self._attempt, self._reader = other._wire, other._attempt, other._reader
        self.usage, self.told_usage, self.cost_usd = other.usage, other.told_usage, other.cost_usd
        self._first, self._is_over, self.trouble = other._first, other._is_over, other.trouble
        self._reading, self._heads_until_s = other._reading, other._heads_until_s
        self._look_for_id()

    def _note_first_byte(self) -> None:
        self.first_byte_s = self._clock.monotonic() - self._attempt.permit.sent_at_s
        self._attempt.note_first_byte(self.first_byte_s)

    def note_stored(self, note: Callable[[Call, str], None]) -> None:
        """Calls `note` with the id of what the upstream keeps, as soon as it is known: who leaves may ask for it."""
        self._note_stored = note
        self._look_for_id()

    def _look_for_id(self) -> None:
        note, stored_id = self._note_stored, self._reader.stored_id
        if note is not None and stored_id is not None:
            self._note_stored = None
            note(self.call, stored_id)

    async def _finish(self) -> bytes:
        """The upstream has no more, or has said what went wrong. Was that all of it?"""
        try:
            rest = self._reader.finish()
        except MalformedResponseError as error:
            await self._end(error)
            raise
        trouble = self._trouble()
        await self._end(trouble)
        if trouble is not None and self._reader.has_told_fault:
            self.trouble = trouble
        elif trouble is not None:
            try:
                raise trouble
            finally:
                del trouble  # see `Dispatcher._until_answered`
        if rest:
            return rest
        raise StopAsyncIteration

    def _trouble(self) -> AIClientError | None:
        reader = self._reader
        if reader.is_whole:
            return None
        fault, trouble = reader.fault, reader.trouble
        if reader.body is not None:
            verdict = read_body(reader.body, self.call.request.endpoint)
            fault = verdict.fault
            self.usage = verdict.usage
            trouble = f"answered a request for a stream with {verdict.trouble or 'one JSON object'}"
        elif trouble is None and not reader.has_begun:
            trouble = "ended a stream without an answer in it"
        if fault is not None:
            return error_within_answer(
                fault,
                self.headers,
                model=self.model,
                key_fingerprint=self._attempt.key.fingerprint,
                wall_s=self._clock.wall(),
            )
        if trouble is not None:
            return MalformedResponseError("upstream", trouble)
        return ConnectionLostError("upstream", "ended the stream before its answer was whole", sent=True)

    async def _end(self, error: BaseException | None) -> None:
        self._is_over = True
        if isinstance(error, AIClientError):
            error.request_id = self.call.request_id
        reader = self._reader
        self.told_usage = self.usage or reader.usage
        self.usage = self.call.counted(self.told_usage)
        if error is None:
            self.cost_usd = self._attempt.answered(
                self.usage,
                headers=self.headers,
                first_byte_s=self.first_byte_s or 0.0,
                passed_bytes=reader.delta_bytes,
            )
        else:
            self._attempt.failed(
                error,
                usage=self.usage,
                # Where nothing went on but a usage was told, what came bounds it all the same.
                passed_bytes=reader.delta_bytes if reader.has_begun or self.told_usage is not None else None,
                has_finished=reader.body is not None or reader.has_told_all(choices=self._choices),
            )
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
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
        """Ends it, wherever it is. Idempotent."""
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

"""Where an answer comes from: the cache, a call that is in flight for somebody else, or a call of one's own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from msgspec import structs

from ai_client.calls.attempt import ClientContext
from ai_client.calls.call import Call
from ai_client.calls.dispatcher import Dispatcher
from ai_client.calls.outcomes import Outcomes
from ai_client.calls.stored import StoredThings, is_kept
from ai_client.calls.streams import Replay, StreamResponse, UpstreamStream
from ai_client.contract.request import CacheMode, Request, Response
from ai_client.contract.stores import Cache, CachedResponse
from ai_client.errors import AIClientError, CacheMissError, DeadlineExceeded, OverloadError
from ai_client.sharing.merged_chat import ChatMerging
from ai_client.sharing.merged_embeddings import EmbeddingMerging
from ai_client.sharing.merger import Merger
from ai_client.sharing.single_flight import Flights
from ai_client.sharing.stream_flight import ChunkSource, StreamFlights

_CACHEABLE = frozenset(("chat/completions", "completions", "embeddings"))
_WITH_STREAM_OPTIONS = frozenset(("chat/completions", "completions"))
_KEPT_HEADERS = ("content-type",)

Result = TypeVar("Result")


class Answers:
    """Without a cache every call is one's own."""

    def __init__(
        self,
        context: ClientContext,
        dispatcher: Dispatcher,
        *,
        cache: Cache | None,
        outcomes: Outcomes,
        make_call: Callable[[Request, str], Call],
        stored: StoredThings | None = None,
    ) -> None:
        self._context = context
        self._dispatcher = dispatcher
        self._make_call = make_call
        self._stored = stored
        self._mergers = {
            "embeddings": Merger(EmbeddingMerging(), self._send_merged, clock=context.clock),
            "chat/completions": Merger(ChatMerging(), self._send_merged, clock=context.clock),
        }
        #: The calls whose requests are with a merger, by the request's id.
        self._merging: dict[int, Call] = {}
        self._cache = cache
        self._outcomes = outcomes
        self._flights: Flights[Response] = Flights(is_leaders_own=_is_leaders_own)
        self._streams: StreamFlights[UpstreamStream] = StreamFlights(
            is_leaders_own=_is_leaders_own, on_whole=self._store_stream
        )

    async def whole(self, call: Call) -> Response:
        """The whole answer."""
        cache = self._cache
        key = None if cache is None else self._key(call, cache)
        if cache is None or key is None:
            self._refuse_if_only_cached(call)
            return await self._own(call)
        cached = self._look_up(call, cache, key)
        if cached is not None:
            return _from_cache(cached, call)
        flight = self._flights.run(key, lambda: self._fetch_and_store(call, cache, key))
        if call.deadline_at_s is None:
            response, is_shared = await flight
        else:
            response, is_shared = await self._within_deadline(call, flight)
        if not is_shared:
            if response.request_id == call.request_id:
                return response
            # Whoever began the call has left: it is this one's now, with all that it cost.
            call.model, call.attempts = response.model, response.attempts
            return replace(response, request_id=call.request_id)
        self._note_shared(call, response.model)
        return replace(response, cached=True, attempts=0, cost_usd=0.0, request_id=call.request_id)

    async def opened(self, call: Call) -> StreamResponse:
        """The answer, piece by piece."""
        if call.request.endpoint in _WITH_STREAM_OPTIONS and self._context.options.ask_stream_usage:
            call.ask_usage()
        cache = self._cache
        key = None if cache is None else self._key(call, cache)
        if cache is None or key is None:
            self._refuse_if_only_cached(call)
            upstream = await self._open_upstream(call)
            return self._stream(upstream, upstream, call, shares=lambda: False)
        cached = self._look_up(call, cache, key)
        if cached is not None:
            return self._replay(cached, call)
        opening = self._streams.open(key, lambda: self._open_upstream(call))
        reader = await self._within_deadline(call, opening)
        if reader.is_shared:
            self._note_shared(call, reader.source.model)
        return self._stream(reader, reader.source, call, shares=lambda: reader.is_shared)

    async def aclose(self) -> None:
        for merger in self._mergers.values():
            await merger.aclose()
        await self._flights.aclose()
        await self._streams.aclose()

    def _key(self, call: Call, cache: Cache) -> str | None:
        """None where the answer neither comes from the cache nor goes into it."""
        request = call.request
        if request.endpoint not in _CACHEABLE or request.cache_mode is CacheMode.NO_STORE:
            return None
        return cache.key(call.routed_request(), request.tenant)

    def _look_up(self, call: Call, cache: Cache, key: str) -> CachedResponse | None:
        """The cached answer. Raises CacheMissError where only that was asked for."""
        cached = cache.get(key)
        reporter, statistics = self._context.reporter, self._context.statistics
        if cached is not None and cached.stream == call.request.stream:
            statistics.cache_hits += 1
            call.model = cached.model
            if reporter.events.active:
                reporter.cache_hit(call, shared=False)
            return cached
        statistics.cache_misses += 1
        if reporter.events.active:
            reporter.cache_missed(call)
        self._refuse_if_only_cached(call)
        return None

    def _refuse_if_only_cached(self, call: Call) -> None:
        if call.request.cache_mode is CacheMode.ONLY_IF_CACHED:
            raise CacheMissError(
                f"request {call.request_id}", "has no cached answer", request_id=call.request_id
            )

    def _note_shared(self, call: Call, model: str) -> None:
        call.model = model
        self._context.statistics.shared += 1
        if self._context.reporter.events.active:
            self._context.reporter.cache_hit(call, shared=True)

    async def _within_deadline(self, call: Call, work: Awaitable[Result]) -> Result:
        """Whoever joined a flight has a deadline of its own."""
        remaining_s = call.remaining_s(self._context.clock.monotonic())
        if remaining_s is None:
            return await work
        try:
            async with asyncio.timeout(remaining_s):
                return await work
        except TimeoutError:
            raise call.deadline_error("upstream") from None

    def _own(self, call: Call) -> Awaitable[Response]:
        """A call of one's own, or a part of one that is merged."""
        request = call.request
        if not (
            request.merge or (request.endpoint == "embeddings" and self._context.options.merge_embeddings)
        ):
            return self._dispatcher.whole(call)
        merger = self._mergers.get(request.endpoint)
        return self._dispatcher.whole(call) if merger is None else self._merged(call, merger)

    async def _merged(self, call: Call, merger: Merger) -> Response:
        # A copy, since callers may send one and the same request twice.
        mergeable = structs.replace(call.routed_request())
        self._merging[id(mergeable)] = call
        try:
            response = await self._within_deadline(call, merger.send(mergeable))
        finally:
            del self._merging[id(mergeable)]
        call.model, call.attempts = response.model, response.attempts
        return response

    async def _send_merged(self, request: Request) -> Response:
        """What a merger sends: a request as it came, or one that stands for several."""
        call = self._merging.get(id(request))
        return await self._dispatcher.whole(call or self._make_call(request, request.model))

    async def _fetch_and_store(self, call: Call, cache: Cache, key: str) -> Response:
        response = await self._own(call)
        ttl_s = self._context.options.cache.ttl_of(call.request.endpoint)
        # A fallback's answer is not the one that the key asks for.
        if ttl_s > 0 and call.has_answer_of_asked_model:
            entry = CachedResponse(
                status=response.status,
                headers=_kept(response.headers),
                body=response.body,
                model=response.model,
                usage=response.usage,
                is_judged=response.parsed is not None,
            )
            cache.put(key, entry, ttl_s=ttl_s)
        return response

    def _store_stream(self, key: str, source: UpstreamStream, body: bytes) -> None:
        call = source.call
        ttl_s = self._context.options.cache.ttl_of(call.request.endpoint)
        if self._cache is None or ttl_s <= 0 or not call.has_answer_of_asked_model:
            return
        entry = CachedResponse(
            status=source.status,
            headers=_kept(source.headers),
            body=body,
            model=source.model,
            stream=True,
            usage=source.usage,
        )
        self._cache.put(key, entry, ttl_s=ttl_s)

    async def _open_upstream(self, call: Call) -> UpstreamStream:
        stream = await self._dispatcher.opened(call)
        if self._stored is not None and is_kept(call.request):
            stream.note_stored(self._stored.note)
        return stream

    def _stream(
        self, source: ChunkSource, upstream: UpstreamStream, call: Call, *, shares: Callable[[], bool]
    ) -> StreamResponse:
        def on_end(response: StreamResponse, error: BaseException | None) -> None:
            error = error or upstream.trouble
            # Whoever opened it may have left it to this one meanwhile.
            is_shared = shares()
            response.usage = upstream.usage
            response.cost_usd = 0.0 if is_shared else upstream.cost_usd
            if self._stored is not None:
                self._stored.book_late(call, upstream.told_usage)
            if error is None:
                self._outcomes.stream_ended(
                    call,
                    status=upstream.status,
                    cached=is_shared,
                    usage=upstream.usage,
                    cost_usd=response.cost_usd,
                    first_byte_s=upstream.first_byte_s,
                )
            else:
                self._outcomes.failed(call, error)

        return StreamResponse(
            source,
            status=upstream.status,
            headers=upstream.headers,
            call=call,
            cached=shares(),
            on_end=on_end,
        )

    def _replay(self, cached: CachedResponse, call: Call) -> StreamResponse:
        def on_end(response: StreamResponse, error: BaseException | None) -> None:
            response.usage = cached.usage
            self._outcomes.stream_ended(
                call, status=cached.status, cached=True, usage=cached.usage, cost_usd=0.0, first_byte_s=None
            )

        return StreamResponse(
            Replay(cached.body),
            status=cached.status,
            headers=cached.headers,
            call=call,
            cached=True,
            on_end=on_end,
        )


def _is_leaders_own(error: AIClientError) -> bool:
    """A deadline and a place in the queue are one caller's: others may fare better."""
    return isinstance(error, DeadlineExceeded | OverloadError)


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: headers[name] for name in _KEPT_HEADERS if name in headers}


def _from_cache(cached: CachedResponse, call: Call) -> Response:
    return Response(
        status=cached.status,
        headers=cached.headers,
        body=cached.body,
        model=cached.model,
        cached=True,
        attempts=0,
        usage=cached.usage,
        cost_usd=0.0,
        request_id=call.request_id,
    )

"""The client that every program on a host shares."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from ai_client.batch_run import as_request, run_in_order
from ai_client.clock import Clock, SystemClock
from ai_client.errors import MalformedResponseError, ServerError
from ai_client.events import EventStream
from ai_client.keys import ApiKey, KeyProvider
from ai_client.options import ClientOptions, Limits
from ai_client.pipeline import Pipeline
from ai_client.ports import Cache, Ledger
from ai_client.request import CacheMode, Importance, Request, Response
from ai_client.routing import RoutingPolicy
from ai_client.sse import SSEParser
from ai_client.streaming import StreamResponse
from ai_client.transport.base import Transport
from ai_client.transport.direct import DirectTransport, default_transport

if TYPE_CHECKING:
    import httpx

    from ai_client.transport.aiohttp import AiohttpTransport

DEFAULT_BASE_URL = "https://api.holysheep.ai/v1"


class AIAPIClient:
    """Sends requests to one OpenAI-compatible API under one set of limits.

    Works as an async context manager and without one; `aclose` ends it. Limits: `max_concurrent` requests at
    once, `requests_per_minute` and `tokens_per_minute` (None: no limit) in any 60 s as the server counts.
    What is handed in (`cache`, `ledger`, `transport`, `http_client`) is not closed by it.
    """

    def __init__(
        self,
        api_key: str | KeyProvider,
        base_url: str = DEFAULT_BASE_URL,
        max_concurrent: int = 50,
        requests_per_minute: int | None = 3000,
        *,
        tokens_per_minute: int | None = None,
        options: ClientOptions | None = None,
        routing: RoutingPolicy | None = None,
        cache: Cache | None = None,
        ledger: Ledger | None = None,
        transport: Transport | None = None,
        http_client: httpx.AsyncClient | None = None,
        clock: Clock | None = None,
        random_source: random.Random | None = None,
        events: EventStream | None = None,
        predecessor: AIAPIClient | None = None,
    ) -> None:
        """`predecessor`: a client whose place this one takes while its last requests end.

        They share one queue, window and concurrency under the new limits, so that the change opens no second
        window; who waits keeps its place. The predecessor is closed by whoever made it, when its requests have ended.
        """
        self.keys = api_key if isinstance(api_key, KeyProvider) else KeyProvider(api_key)
        self.events = events or EventStream()
        chosen = options or ClientOptions()
        self._own_transport: DirectTransport | AiohttpTransport | None = None
        if transport is None and http_client is not None:
            from ai_client.transport.httpx import HttpxTransport  # noqa: PLC0415 - memory that few need

            transport = HttpxTransport(http_client, chosen.transport)
        elif transport is None:
            transport = self._own_transport = default_transport(chosen.transport)
        self._pipeline: Pipeline = Pipeline(
            base_url=base_url.rstrip("/"),
            keys=self.keys,
            limits=Limits(max_concurrent, requests_per_minute, tokens_per_minute),
            options=chosen,
            routing=routing,
            cache=cache,
            ledger=ledger,
            transport=transport,
            clock=clock or SystemClock(),
            random_source=random_source or random.Random(),  # noqa: S311 - jitter, not a secret
            events=self.events,
            predecessor=None if predecessor is None else predecessor._pipeline,
        )

    async def chat_completion(
        self,
        messages: Sequence[Mapping[str, Any]],
        model: str = "gpt-4.1",
        priority: int = 5,
        *,
        tenant: str = "default",
        importance: Importance | None = None,
        deadline_s: float | None = None,
        cache_mode: CacheMode = CacheMode.DEFAULT,
        idempotency_key: str | None = None,
        merge: bool = False,
        **parameters: Any,
    ) -> dict[str, Any]:
        """The answer, parsed. `parameters` (temperature, max_tokens …) go into the body untouched.

        In the body's JSON bytes are base64, sets are lists, and NaN is null.
        """
        request = Request(
            endpoint="chat/completions",
            body={"model": model, "messages": messages, **parameters},
            priority=priority,
            tenant=tenant,
            importance=importance,
            deadline_s=deadline_s,
            cache_mode=cache_mode,
            idempotency_key=idempotency_key,
            merge=merge,
        )
        response = await self._pipeline.send(request)
        answer: dict[str, Any] = response.json()
        return answer

    async def stream_chat_completion(
        self,
        messages: Sequence[Mapping[str, Any]],
        model: str = "gpt-4.1",
        priority: int = 5,
        *,
        tenant: str = "default",
        importance: Importance | None = None,
        deadline_s: float | None = None,
        cache_mode: CacheMode = CacheMode.DEFAULT,
        **parameters: Any,
    ) -> AsyncIterator[dict[str, Any]]:
        """The chunks of a streamed answer, parsed: `async for chunk in client.stream_chat_completion(…)`."""
        request = Request(
            endpoint="chat/completions",
            body={"model": model, "messages": messages, **parameters},
            stream=True,
            priority=priority,
            tenant=tenant,
            importance=importance,
            deadline_s=deadline_s,
            cache_mode=cache_mode,
        )
        parser = SSEParser()
        async with await self._pipeline.stream(request) as response:
            async for raw in response:
                for chunk in parser.feed(raw):
                    if "error" in chunk:
                        raise ServerError("upstream", "broke the stream off with an error event")
                    yield chunk

    async def embeddings(
        self,
        texts: str | Sequence[str],
        model: str,
        priority: int = 5,
        *,
        tenant: str = "default",
        deadline_s: float | None = None,
        **parameters: Any,
    ) -> list[list[float]]:
        """One vector a text, in their order."""
        inputs = [texts] if isinstance(texts, str) else list(texts)
        request = Request(
            endpoint="embeddings",
            body={"model": model, "input": inputs, **parameters},
            priority=priority,
            tenant=tenant,
            deadline_s=deadline_s,
        )
        response = await self._pipeline.send(request)
        return _vectors(response, len(inputs))

    async def batch_process(
        self,
        requests: Iterable[Mapping[str, Any] | Sequence[Mapping[str, Any]] | str | Request],
        model: str = "deepseek-v3.2",
        *,
        priority: int = 5,
        tenant: str = "default",
    ) -> list[dict[str, Any] | Exception]:
        """The answers in the order of `requests`, an exception in the place of each that failed.

        A request is a mapping with `messages` and any parameters, a list of messages, a prompt, or a `Request`.
        """
        calls = [as_request(each, model=model, priority=priority, tenant=tenant) for each in requests]
        # Twice as many as may be sent at once keep the queue from running dry, and never flood it.
        return await run_in_order(
            calls, self._pipeline.send, at_once=2 * self._pipeline.limits.max_concurrent
        )

    async def send(self, request: Request) -> Response:
        """One request, answered whole. Raises AIClientError only."""
        return await self._pipeline.send(request)

    async def stream(self, request: Request) -> StreamResponse:
        """One request, answered piece by piece. Raises AIClientError only, here and while it is read."""
        return await self._pipeline.stream(request)

    async def models(self) -> list[str]:
        """The names of the models that the upstream offers."""
        return await self._pipeline.models()

    def get_stats(self) -> dict[str, Any]:
        """Counters since the client was made, and where it stands. `error_rate`: errors over attempts that ended."""
        return self._pipeline.get_stats()

    def reconfigure(
        self,
        *,
        api_key: str | ApiKey | None = None,
        following_key: str | ApiKey | None = None,
        limits: Limits | None = None,
        options: ClientOptions | None = None,
        routing: RoutingPolicy | None = None,
    ) -> None:
        """New keys, limits, options or routing for a running client; what is None stays as it is.

        No request is dropped: those under way end as they began. Of `options`, `transport` and the size of the
        retry budget are read only at the start, and `breaker` and `adaptive` when a model is first asked.
        """
        if api_key is not None:
            self.keys.rotate(api_key, following=following_key)
        self._pipeline.reconfigure(limits=limits, options=options, routing=routing)

    def snapshot(self) -> dict[str, Any]:
        """What counts in the rate window now, as JSON data: for `restore` in the next process."""
        return self._pipeline.snapshot()

    def restore(self, state: Mapping[str, Any]) -> int:
        """Counts what an earlier process sent, so that a restart opens no second window. How many requests."""
        return self._pipeline.restore(state)

    async def aclose(self) -> None:
        """Ends those who wait with ClientClosedError and closes the connections. Calling it twice is fine."""
        await self._pipeline.aclose()
        if self._own_transport is not None:
            await self._own_transport.aclose()

    def __del__(self) -> None:
        own: DirectTransport | AiohttpTransport | None = getattr(self, "_own_transport", None)
        if own is not None:
            own.abandon()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _vectors(response: Response, count: int) -> list[list[float]]:
    try:
        data = sorted(response.json()["data"], key=lambda entry: entry["index"])
        vectors = [entry["embedding"] for entry in data]
    except (ValueError, KeyError, TypeError) as error:
        raise MalformedResponseError("upstream", "answered embeddings in another shape") from error
    if len(vectors) != count:
        raise MalformedResponseError("upstream", f"answered {len(vectors)} embeddings for {count} texts")
    return vectors

"""The client that every program on a host shares."""

from __future__ import annotations

import json
import random
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Self

import httpx

from ai_client.clock import Clock, SystemClock
from ai_client.errors import AIClientError, ClientClosedError, MalformedResponseError
from ai_client.events import EventStream
from ai_client.keys import KeyProvider
from ai_client.options import ClientOptions
from ai_client.ports import Cache, Ledger
from ai_client.request import CacheMode, Importance, Request, Response, usage_from_json
from ai_client.sse import SSEParser
from ai_client.streaming import StreamResponse
from ai_client.transport.aiohttp import AiohttpTransport
from ai_client.transport.base import Transport
from ai_client.upstream import error_from_answer
from ai_client.wire import build_wire_request, encode_body

DEFAULT_BASE_URL = "https://api.holysheep.ai/v1"


class AIAPIClient:
    """Sends requests to one OpenAI-compatible API under one set of limits.

    Works as an async context manager and without one; `aclose` ends it. Limits: `max_concurrent` requests
    at once, `requests_per_minute` and `tokens_per_minute` (None: no limit) in any 60 s as the server counts.
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
        cache: Cache | None = None,
        ledger: Ledger | None = None,
        transport: Transport | None = None,
        http_client: httpx.AsyncClient | None = None,
        clock: Clock | None = None,
        random_source: random.Random | None = None,
        events: EventStream | None = None,
    ) -> None:
        self.keys = api_key if isinstance(api_key, KeyProvider) else KeyProvider(api_key)
        self.events = events or EventStream()
        self._base_url = base_url.rstrip("/")
        self._options = options or ClientOptions()
        self._clock = clock or SystemClock()
        self._random = random_source or random.Random()  # noqa: S311 - jitter, not a secret
        self._cache = cache
        self._ledger = ledger
        self._max_concurrent = max_concurrent
        self._limit_rpm = requests_per_minute
        self._limit_tpm = tokens_per_minute
        self._transport = transport or AiohttpTransport(self._options.transport)
        self._id_prefix = secrets.token_hex(6)
        self._count = 0
        self._closed = False

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
        **parameters: Any,
    ) -> dict[str, Any]:
        """The answer, parsed. `parameters` (temperature, max_tokens …) go into the body untouched."""
        request = Request(
            endpoint="chat/completions",
            body={"model": model, "messages": messages, **parameters},
            priority=priority,
            tenant=tenant,
            importance=importance,
            deadline_s=deadline_s,
            cache_mode=cache_mode,
            idempotency_key=idempotency_key,
        )
        response = await self.send(request)
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
        )
        parser = SSEParser()
        async with await self.stream(request) as response:
            async for raw in response:
                for chunk in parser.feed(raw):
                    yield chunk

    async def send(self, request: Request) -> Response:
        """One request, answered whole. Raises AIClientError only."""
        self._check_open()
        wire, model, request_id = self._wire(request)
        answer = await self._transport.fetch(wire)
        if answer.status >= 300:
            raise self._error(answer.status, answer.headers, answer.body, model=model, request_id=request_id)
        try:
            value = json.loads(answer.body)
        except ValueError as error:
            raise MalformedResponseError("upstream", "answered with something that is not JSON") from error
        usage = usage_from_json(value.get("usage")) if isinstance(value, dict) else None
        return Response(
            status=answer.status,
            headers=answer.headers,
            body=answer.body,
            model=model,
            usage=usage,
            request_id=request_id,
        )

    async def stream(self, request: Request) -> StreamResponse:
        """One request, answered piece by piece. Raises AIClientError only, here and while it is read."""
        self._check_open()
        wire, model, request_id = self._wire(request)
        stream = await self._transport.open(wire)
        if stream.status >= 300:
            try:
                body = b"".join([chunk async for chunk in stream.chunks()])
            finally:
                await stream.aclose()
            raise self._error(stream.status, stream.headers, body, model=model, request_id=request_id)
        return StreamResponse(stream, model=model, request_id=request_id, on_end=lambda: None)

    def _wire(self, request: Request) -> Any:
        self._count += 1
        request_id = f"{self._id_prefix}-{self._count:x}"
        wire = build_wire_request(
            request,
            base_url=self._base_url,
            body=None if request.endpoint == "models" else encode_body(request),
            key=self.keys.current,
            idempotency_key=request.idempotency_key or request_id,
            request_id=request_id,
        )
        return wire, request.model, request_id

    def _error(
        self, status: int, headers: Mapping[str, str], body: bytes, *, model: str, request_id: str
    ) -> AIClientError:
        return error_from_answer(
            status,
            headers,
            body,
            model=model,
            key_fingerprint=self.keys.current.fingerprint,
            request_id=request_id,
            wall_s=self._clock.wall(),
        )

    async def models(self) -> list[str]:
        """The names of the models that the upstream offers."""
        response = await self.send(Request(endpoint="models", body={}))
        return [entry["id"] for entry in response.json().get("data", ()) if "id" in entry]

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosedError("client", "is closed")

    async def aclose(self) -> None:
        """Closes connections and files. Calling it twice is fine."""
        if self._closed:
            return
        self._closed = True
        await self._transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

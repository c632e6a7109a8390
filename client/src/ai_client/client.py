"""The client that every program on a host shares."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

from ai_client.admission.meter_log import MeterLog
from ai_client.admission.window import SlidingWindow
from ai_client.calls.in_order import as_requests, run_in_order
from ai_client.calls.pipeline import Pipeline
from ai_client.calls.routing import RoutingPolicy
from ai_client.calls.streams import StreamResponse
from ai_client.contract.events import EventStream
from ai_client.contract.keys import ApiKey, KeyProvider
from ai_client.contract.options import ClientOptions, Limits
from ai_client.contract.request import CacheMode, Importance, Request, Response
from ai_client.contract.stores import Cache, Homes, Ledger
from ai_client.contract.upstreams import Upstream
from ai_client.dialects.sse import SSEParser
from ai_client.errors import ClientInUseError, MalformedResponseError
from ai_client.platform.clock import Clock, SystemClock
from ai_client.platform.loop import ForkMark, RunningLoop
from ai_client.transport.base import Transport, TransportOptions
from ai_client.transport.direct import DirectTransport
from ai_client.transport.proxies import ProxyingTransport, default_transport

if TYPE_CHECKING:
    import httpx


DEFAULT_BASE_URL = "https://api.holysheep.ai/v1"
# What a child process has from its parent is kept as it is: closing it would write to the parent's connections, or take
# them out of the poll set that both share.
_OF_THE_PARENT: Final[list[object]] = []


class AIAPIClient:
    """Sends requests to one OpenAI-compatible API under one set of limits.

    Works as an async context manager and without one; `aclose` ends it. Limits: `max_concurrent` requests at
    once, `requests_per_minute` and `tokens_per_minute` (None: no limit) in any 60 s as the server counts.
    What is handed in (`cache`, `ledger`, `transport`, `http_client`) is not closed by it.

    One event loop at a time uses it, one after another is fine; a call while another one runs raises ClientInUseError.
    In a process that was forked it starts anew, with connections of its own and what the window held; where
    something was handed in that belongs to the parent, each call raises ClientInUseError.
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
        upstreams: Sequence[Upstream] = (),
        homes: Homes | None = None,
        predecessor: AIAPIClient | None = None,
        window: SlidingWindow | None = None,
    ) -> None:
        """`base_url` and `api_key` are the default upstream's; `upstreams` are others, whose models are `NAME/MODEL`.
        One among them without a name takes the default one's place, with `api_key` as its own.

        `homes` remembers which upstream and key made what is stored (`resp_…`), so that it is found again.

        `predecessor`: a client whose place this one takes while its last requests end.

        They share one queue, window and concurrency under the new limits, so that the change opens no second
        window; who waits keeps its place. The predecessor is closed by whoever made it, when its requests have ended.

        `window` counts instead of one of the client's own under `requests_per_minute` and `tokens_per_minute`: a
        leased one, say. Whoever changes its limits says so with `window_changed`.
        """
        self.keys = api_key if isinstance(api_key, KeyProvider) else KeyProvider(api_key)
        self.events = events or EventStream()
        chosen = options or ClientOptions()
        self._loop, self._forked = RunningLoop(), ForkMark()
        of_the_caller: dict[str, object] = {
            "cache": cache,
            "ledger": ledger,
            "transport": transport,
            "http_client": http_client,
            "homes": homes,
            "window": window,
        }
        self._handed_in = [name for name, value in of_the_caller.items() if value is not None]
        self._own_transport: DirectTransport | ProxyingTransport | None = None
        if transport is None:
            transport = self._make_transport(http_client, chosen.transport)
        self._make_pipeline = partial(
            Pipeline,
            upstreams=_with_default(upstreams, Upstream(base_url=base_url.rstrip("/"), keys=self.keys)),
            routing=routing,
            cache=cache,
            ledger=ledger,
            clock=clock or SystemClock(),
            events=self.events,
            homes=homes,
        )
        self._pipeline: Pipeline = self._make_pipeline(
            limits=Limits(max_concurrent, requests_per_minute, tokens_per_minute),
            options=chosen,
            transport=transport,
            random_source=random_source or random.Random(),  # noqa: S311 - jitter, not a secret
            predecessor=None if predecessor is None else predecessor._pipeline,
            window=window,
        )

    def _make_transport(self, http_client: httpx.AsyncClient | None, options: TransportOptions) -> Transport:
        """Over `http_client` where one was handed in, else one of its own, which it closes."""
        if http_client is not None:
            from ai_client.transport.httpx import HttpxTransport  # noqa: PLC0415 - memory that few need

            return HttpxTransport(http_client, options)
        self._own_transport = default_transport(options, environment=os.environ)
        return self._own_transport

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
        response = await self._use().send(request)
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
        async with await self._use().stream(request) as response:
            async for raw in response:
                for chunk in parser.feed(raw):
                    yield chunk
            for chunk in parser.rest():
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
        response = await self._use().send(request)
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

        A request is a mapping with `messages`, any parameters and, if it has one of its own, a `priority`; a list of
        messages; a prompt; or a `Request`.
        """
        calls = as_requests(requests, model=model, priority=priority, tenant=tenant)
        # Twice as many as may be sent at once keep the queue from running dry, and never flood it.
        pipeline = self._use()
        return await run_in_order(calls, pipeline.send, at_once=2 * pipeline.limits.max_concurrent)

    async def send(self, request: Request) -> Response:
        """One request, answered whole. Raises AIClientError only."""
        return await self._use().send(request)

    async def stream(self, request: Request) -> StreamResponse:
        """One request, answered piece by piece. Raises AIClientError only, here and while it is read."""
        return await self._use().stream(request)

    async def models(self) -> list[str]:
        """The names of the models that the upstream offers."""
        return await self._use().models()

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

    def hold(self, model: str, key_fingerprint: str, pause_s: float) -> None:
        """Another user of the key was told to wait: what goes to `model` with it waits here, too, and starts slowly."""
        self._pipeline.hold(model, key_fingerprint, pause_s)

    def window_changed(self) -> None:
        """The limits of the window that was handed in have moved: those who wait may go."""
        self._pipeline.window_changed()

    def snapshot(self) -> dict[str, Any]:
        """What counts in the rate window now, as JSON data: for `restore` in the next process."""
        return self._pipeline.snapshot()

    def hand_over(self) -> dict[str, Any]:
        """A last `snapshot`: from now on another process admits, and nothing more is sent that was not admitted.

        Who waits, comes or would have to go again gets ClientClosedError with `is_handed_over`; until `resume`.
        """
        return self._pipeline.hand_over()

    def resume(self) -> None:
        """Admit again: the other process did not take over."""
        self._pipeline.resume()

    def parked(self) -> list[list[str | float]]:
        """Models that their upstreams want to be left alone: name, key's fingerprint, until when, and as asked.

        As JSON data, for `restore` in the next process under "parked". Wall-clock seconds.
        """
        return self._pipeline.parked()

    def remember_limits(self, log: MeterLog, *, is_first: bool) -> None:
        """Notes in `log` what counts in limits of models and upstreams; `is_first`: after what is in it counts too.

        Who gets a `snapshot` from the process before has that already.
        """
        self._pipeline.remember_limits(log, is_first=is_first)

    def note_limits_again(self) -> None:
        """The wall clock was set: notes anew what was sent under limits of models, by its new time."""
        self._pipeline.note_limits_again()

    def restore(self, state: Mapping[str, Any]) -> int:
        """Counts what an earlier process sent, so that a restart opens no second window. How many requests."""
        return self._pipeline.restore(state)

    async def aclose(self) -> None:
        """Ends those who wait with ClientClosedError and closes the connections. Calling it twice is fine."""
        if self._forked.is_forked:
            return  # what it holds is the parent's
        await self._pipeline.aclose()
        if self._own_transport is not None:
            await self._own_transport.aclose()

    def _use(self) -> Pipeline:
        """For a call that begins. Raises ClientInUseError."""
        if self._forked.is_forked:
            self._start_anew()
        if self._loop.is_elsewhere:
            raise ClientInUseError("client", "is in use by an event loop that runs in another thread")
        self._loop.get()
        return self._pipeline

    def _start_anew(self) -> None:
        """In a child process: the parent's connections, waiters and timers are not ours."""
        if self._handed_in:
            raise ClientInUseError(
                "client",
                f"was made in the process that this one was forked from, with a {self._handed_in[0]} of that process",
            )
        before = self._pipeline
        _OF_THE_PARENT.append((before, self._own_transport))
        options = before.options
        self._own_transport = default_transport(options.transport, environment=os.environ)
        self._pipeline = self._make_pipeline(
            limits=before.limits,
            options=options,
            routing=before.routing,
            transport=self._own_transport,
            random_source=random.Random(),  # noqa: S311 - a child must not jitter in step with its parent
        )
        self._pipeline.restore(before.snapshot())
        self._loop, self._forked = RunningLoop(), ForkMark()

    def __del__(self) -> None:
        own: DirectTransport | ProxyingTransport | None = getattr(self, "_own_transport", None)
        if own is not None and not self._forked.is_forked:
            own.abandon()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _with_default(upstreams: Sequence[Upstream], default: Upstream) -> tuple[Upstream, ...]:
    """The default one first."""
    first = next((each for each in upstreams if not each.name), default)
    return (first, *(each for each in upstreams if each.name))


def _vectors(response: Response, count: int) -> list[list[float]]:
    try:
        data = sorted(response.json()["data"], key=lambda entry: entry["index"])
        vectors = [entry["embedding"] for entry in data]
    except (ValueError, KeyError, TypeError) as error:
        raise MalformedResponseError("upstream", "answered embeddings in another shape") from error
    if len(vectors) != count:
        raise MalformedResponseError("upstream", f"answered {len(vectors)} embeddings for {count} texts")
    return vectors

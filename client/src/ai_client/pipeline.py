"""A request's way through the client: routing, cache, single flight, dispatch; and what is told of it in the end."""

from __future__ import annotations

import random
import secrets
from collections.abc import Mapping
from typing import Any

from ai_client.answers import Answers
from ai_client.attempt import Desk
from ai_client.call import Call
from ai_client.clock import Clock
from ai_client.dispatch import Dispatcher
from ai_client.errors import AIClientError, ClientClosedError, ModelNotFoundError
from ai_client.events import EventStream
from ai_client.keys import KeyProvider
from ai_client.lanes import Lanes
from ai_client.limits import SlidingWindow
from ai_client.options import ClientOptions, Limits
from ai_client.outcomes import Outcomes
from ai_client.ports import Cache, Ledger
from ai_client.reporting import Reporter
from ai_client.request import Request, Response
from ai_client.routing import RoutingPolicy
from ai_client.scheduler import Scheduler
from ai_client.stats import Statistics
from ai_client.streaming import StreamResponse
from ai_client.transport.base import Transport
from ai_client.upstream import model_not_found

_MODELS_KEPT_S = 300.0


class Pipeline:
    """What `AIAPIClient` is made of. One event loop owns it."""

    def __init__(
        self,
        *,
        base_url: str,
        keys: KeyProvider,
        limits: Limits,
        options: ClientOptions,
        routing: RoutingPolicy | None,
        cache: Cache | None,
        ledger: Ledger | None,
        transport: Transport,
        clock: Clock,
        random_source: random.Random,
        events: EventStream,
        predecessor: Pipeline | None = None,
    ) -> None:
        self.limits = limits
        self._routing = routing
        self._transport = transport
        self._clock = clock
        self._statistics = Statistics()
        self._reporter = Reporter(events, clock)
        self._admit_by(predecessor, options, random_source)
        self._desk = Desk(
            base_url, clock, self._scheduler, self._lanes, self._reporter, self._statistics, options, ledger
        )
        dispatcher = Dispatcher(self._desk, transport=transport, keys=keys, random_source=random_source)
        self._outcomes = Outcomes(self._statistics, self._reporter, clock)
        self._answers = Answers(
            self._desk, dispatcher, cache=cache, outcomes=self._outcomes, make_call=self._make_call
        )
        self._ids = secrets.token_hex(6)
        self._count = 0
        self._known_models: tuple[float, list[str]] | None = None
        self._closed = False
        self._is_succeeded = False

    def _admit_by(
        self, predecessor: Pipeline | None, options: ClientOptions, random_source: random.Random
    ) -> None:
        """A queue of one's own, or the one of `predecessor`, with all that it holds and knows."""
        limits = self.limits
        if predecessor is None:
            self._window = _make_window(limits, options)
            self._scheduler = Scheduler(
                clock=self._clock,
                window=self._window,
                max_concurrent=limits.max_concurrent,
                options=options.queue,
            )
            self._lanes = Lanes(options, limits, random_source=random_source)
            return
        predecessor._is_succeeded = True
        self._window, self._scheduler, self._lanes = (
            predecessor._window,
            predecessor._scheduler,
            predecessor._lanes,
        )
        self._reconfigure_admission(options)

    async def send(self, request: Request) -> Response:
        """See `AIAPIClient.send`."""
        call = self._call(request)
        try:
            response = await self._answers.whole(call)
        except ModelNotFoundError as error:
            self._outcomes.failed(call, error)
            raise await self._with_names(error) from error
        except BaseException as error:
            self._outcomes.failed(call, error)
            raise
        self._outcomes.answered(call, response)
        return response

    async def stream(self, request: Request) -> StreamResponse:
        """See `AIAPIClient.stream`."""
        call = self._call(request)
        try:
            return await self._answers.opened(call)
        except ModelNotFoundError as error:
            self._outcomes.failed(call, error)
            raise await self._with_names(error) from error
        except BaseException as error:
            self._outcomes.failed(call, error)
            raise

    async def models(self) -> list[str]:
        """The upstream's models."""
        response = await self.send(Request(endpoint="models", body={}, priority=0))
        data = response.json().get("data", ())
        names = [
            entry["id"] for entry in data if isinstance(entry, dict) and isinstance(entry.get("id"), str)
        ]
        self._known_models = (self._clock.monotonic(), names)
        return names

    def get_stats(self) -> dict[str, Any]:
        """See `AIAPIClient.get_stats`."""
        now_s = self._clock.monotonic()
        self._window.fits(0, now_s)  # drops what is over
        pool = self._transport.statistics()
        return {
            **self._statistics.as_dict(),
            "in_flight": self._scheduler.in_flight,
            "queued": self._scheduler.queued,
            "window_requests": self._window.used_requests,
            "window_tokens": self._window.used_tokens,
            "pool": {"size": pool.size, "in_use": pool.in_use, "waiting": pool.waiting},
            "models": {
                name: {"concurrency_limit": state.concurrency.limit, "breaker": state.breaker.state.value}
                for name, state in self._lanes.models()
            },
            "routing": None if self._routing is None else self._routing.report(),
        }

    def reconfigure(
        self, *, limits: Limits | None, options: ClientOptions | None, routing: RoutingPolicy | None
    ) -> None:
        """See `AIAPIClient.reconfigure`."""
        self.limits = limits or self.limits
        self._routing = routing or self._routing
        self._desk.options = options or self._desk.options
        self._reconfigure_admission(self._desk.options)

    def _reconfigure_admission(self, options: ClientOptions) -> None:
        self._lanes.reconfigure(options, self.limits)
        self._scheduler.reconfigure(
            max_concurrent=self.limits.max_concurrent,
            limit_requests=self.limits.requests_per_minute,
            limit_tokens=self.limits.tokens_per_minute,
            options=options.queue,
        )

    def snapshot(self) -> dict[str, Any]:
        """See `AIAPIClient.snapshot`."""
        return self._window.snapshot(clock=self._clock)

    def restore(self, state: Mapping[str, Any]) -> int:
        """See `AIAPIClient.restore`."""
        return self._window.restore(state, clock=self._clock)

    async def aclose(self) -> None:
        """Refuses those who wait and those who come; what is in flight fails as its connection closes."""
        if self._closed:
            return
        self._closed = True
        if not self._is_succeeded:
            self._scheduler.close()
        await self._answers.aclose()

    def _call(self, request: Request) -> Call:
        if self._closed:
            raise ClientClosedError("client", "is closed")
        return self._make_call(
            request, request.model if self._routing is None else self._routing.route(request)
        )

    def _make_call(self, request: Request, model: str) -> Call:
        self._count += 1
        deadline_s = request.deadline_s
        return Call(
            request,
            request_id=f"{self._ids}-{self._count:x}",
            model=model,
            now_s=self._clock.monotonic(),
            deadline_s=self._desk.options.deadline_s if deadline_s is None else deadline_s,
        )

    async def _with_names(self, error: ModelNotFoundError) -> ModelNotFoundError:
        """The same with the names that there are."""
        if error.available or not error.model:
            return error
        better = model_not_found(error.model, await self._models_or_none())
        better.request_id = error.request_id
        return better

    async def _models_or_none(self) -> list[str]:
        """For an error's text: the models, if the upstream tells them."""
        known = self._known_models
        if known is not None and self._clock.monotonic() - known[0] < _MODELS_KEPT_S:
            return known[1]
        try:
            return await self.models()
        except AIClientError:
            return []


def _make_window(limits: Limits, options: ClientOptions) -> SlidingWindow:
    return SlidingWindow(
        limit_requests=limits.requests_per_minute,
        limit_tokens=limits.tokens_per_minute,
        network_delay_s=options.queue.network_delay_s,
    )

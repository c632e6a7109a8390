"""A request's way through the client: routing, cache, single flight, dispatch; and what is told of it in the end."""

from __future__ import annotations

import random
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from ai_client.admission.lanes import Lanes
from ai_client.admission.meter_log import MeterLog
from ai_client.admission.meters import Meters
from ai_client.admission.scheduler import Scheduler
from ai_client.admission.window import SlidingWindow
from ai_client.calls.answers import Answers
from ai_client.calls.attempt import ClientContext
from ai_client.calls.call import Call
from ai_client.calls.dispatcher import Dispatcher
from ai_client.calls.outcomes import Outcomes
from ai_client.calls.reporting import Reporter
from ai_client.calls.routing import RoutingPolicy
from ai_client.calls.stored import StoredThings
from ai_client.calls.streams import StreamResponse
from ai_client.calls.targets import Targets
from ai_client.contract.events import EventStream
from ai_client.contract.options import ClientOptions, Limits
from ai_client.contract.request import Request, Response
from ai_client.contract.statistics import Statistics
from ai_client.contract.stores import Cache, Homes, Ledger
from ai_client.contract.upstreams import Upstream
from ai_client.dialects.error_answers import model_not_found
from ai_client.dialects.model_list import model_names
from ai_client.errors import AIClientError, ClientClosedError, ModelNotFoundError
from ai_client.platform.clock import Clock
from ai_client.transport.base import Transport

_MODELS_KEPT_S = 300.0
# How long an error may be held back for the names of the models that there are.
_NAMES_WAIT_S = 2.0


class Pipeline:
    """What `AIAPIClient` is made of. One event loop owns it."""

    def __init__(
        self,
        *,
        upstreams: Sequence[Upstream],
        limits: Limits,
        options: ClientOptions,
        routing: RoutingPolicy | None,
        cache: Cache | None,
        ledger: Ledger | None,
        transport: Transport,
        clock: Clock,
        random_source: random.Random,
        events: EventStream,
        homes: Homes | None = None,
        predecessor: Pipeline | None = None,
        window: SlidingWindow | None = None,
    ) -> None:
        self.limits = limits
        self.routing = routing
        self._transport = transport
        self._clock = clock
        self._statistics = Statistics()
        self._reporter = Reporter(events, clock)
        self._admit_by(predecessor, options, random_source, window=window)
        self._context = ClientContext(
            clock,
            self._scheduler,
            self._lanes,
            self._reporter,
            self._statistics,
            options,
            self._meters,
            ledger,
        )
        targets = Targets(upstreams, random_source=random_source)
        self._stored = None if homes is None else StoredThings(homes, targets, ledger)
        dispatcher = Dispatcher(
            self._context, transport=transport, targets=targets, random_source=random_source
        )
        self._outcomes = Outcomes(self._statistics, self._reporter, clock)
        self._answers = Answers(
            self._context,
            dispatcher,
            cache=cache,
            outcomes=self._outcomes,
            make_call=self._make_call,
            stored=self._stored,
        )
        self._ids = secrets.token_hex(6)
        self._count = 0
        self._known_models: tuple[float, list[str]] | None = None
        self._closed = self._is_succeeded = False

    def _admit_by(
        self,
        predecessor: Pipeline | None,
        options: ClientOptions,
        random_source: random.Random,
        *,
        window: SlidingWindow | None,
    ) -> None:
        """A queue of one's own over `window`, or the one of `predecessor`, with all that it holds and knows."""
        limits = self.limits
        self._meters: Meters = Meters(
            options.model_limits,
            clock=self._clock,
            network_delay_s=options.queue.network_delay_s,
            before=None if predecessor is None else predecessor._meters,
        )
        if predecessor is None:
            self._window = window or _make_window(limits, options)
            self._scheduler = Scheduler(
                clock=self._clock,
                window=self._window,
                max_concurrent=limits.max_concurrent,
                options=options.queue,
                random_source=random_source,
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

    @property
    def options(self) -> ClientOptions:
        """Those in force."""
        return self._context.options

    async def send(self, request: Request) -> Response:
        """See `AIAPIClient.send`."""
        call = self._call(request)
        stored = None if call.api.is_stateless else self._stored
        try:
            if stored is not None:
                stored.send_home(call)
            response = await self._answers.whole(call)
        except ModelNotFoundError as error:
            self._outcomes.failed(call, error)
            raise await self._with_names(error, call) from error
        except BaseException as error:
            self._outcomes.failed(call, error)
            raise
        if stored is not None:
            stored.note_answer(call, response)
            response = stored.without_others(call, response)
        self._outcomes.answered(call, response)
        return response

    async def stream(self, request: Request) -> StreamResponse:
        """See `AIAPIClient.stream`."""
        call = self._call(request)
        try:
            if self._stored is not None:
                self._stored.send_home(call)
            return await self._answers.opened(call)
        except ModelNotFoundError as error:
            self._outcomes.failed(call, error)
            raise await self._with_names(error, call) from error
        except BaseException as error:
            self._outcomes.failed(call, error)
            raise

    async def models(self) -> list[str]:
        """The upstream's models."""
        return await self._ask_for_models(None)

    async def _ask_for_models(self, within_s: float | None) -> list[str]:
        response = await self.send(Request(endpoint="models", body={}, priority=0, deadline_s=within_s))
        names = model_names(response.json())
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
            "limit_requests": self._window.limit_requests,
            "limit_tokens": self._window.limit_tokens,
            "window_requests": self._window.used_requests,
            "window_tokens": self._window.used_tokens,
            "pool": {"size": pool.size, "in_use": pool.in_use, "waiting": pool.waiting},
            "models": {
                name: {"concurrency_limit": state.concurrency.limit, "breaker": state.breaker.state.value}
                for name, state in self._lanes.models()
            },
            "routing": None if self.routing is None else self.routing.report(),
        }

    def reconfigure(
        self, *, limits: Limits | None, options: ClientOptions | None, routing: RoutingPolicy | None
    ) -> None:
        """See `AIAPIClient.reconfigure`."""
        self.limits = limits or self.limits
        self.routing = routing or self.routing
        self._context.options = options or self._context.options
        self._reconfigure_admission(self._context.options)

    def _reconfigure_admission(self, options: ClientOptions) -> None:
        self._lanes.reconfigure(options, self.limits)
        self._scheduler.reconfigure(
            max_concurrent=self.limits.max_concurrent,
            limit_requests=self.limits.requests_per_minute,
            limit_tokens=self.limits.tokens_per_minute,
            options=options.queue,
        )

    def hold(self, model: str, key_fingerprint: str, pause_s: float) -> None:
        """See `AIAPIClient.hold`."""
        lane = self._lanes.known(model, key_fingerprint)
        if lane is not None:
            now_s = self._clock.monotonic()
            lane.throttle.refused(now_s, sent_at_s=now_s, retry_after_s=pause_s)
            self._scheduler.lane_changed(lane)

    def window_changed(self) -> None:
        """See `AIAPIClient.window_changed`."""
        self._scheduler.window_changed()

    def snapshot(self) -> dict[str, Any]:
        """See `AIAPIClient.snapshot`."""
        state = {**self._window.snapshot(clock=self._clock), "parked": self.parked()}
        return state if self._meters.is_empty else {**state, "meters": self._meters.snapshot()}

    def parked(self) -> list[list[str | float]]:
        """See `AIAPIClient.parked`."""
        return self._lanes.parked(clock=self._clock)

    def remember_limits(self, log: MeterLog, *, is_first: bool) -> None:
        """See `AIAPIClient.remember_limits`."""
        if is_first:
            self._meters.recall(log)
        self._meters.keep_in(log)

    def note_limits_again(self) -> None:
        """See `AIAPIClient.note_limits_again`."""
        self._meters.note_again()

    def hand_over(self) -> dict[str, Any]:
        """See `AIAPIClient.hand_over`."""
        self._scheduler.hand_over()
        return self.snapshot()

    def resume(self) -> None:
        """See `AIAPIClient.resume`."""
        self._scheduler.resume()

    def restore(self, state: Mapping[str, Any]) -> int:
        """See `AIAPIClient.restore`."""
        self._meters.restore(state.get("meters"))
        self._lanes.park(state.get("parked"), clock=self._clock)
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
            request, request.model if self.routing is None else self.routing.route(request)
        )

    def _make_call(self, request: Request, model: str) -> Call:
        self._count += 1
        deadline_s = request.deadline_s
        return Call(
            request,
            request_id=f"{self._ids}-{self._count:x}",
            model=model,
            now_s=self._clock.monotonic(),
            deadline_s=self._context.options.deadline_s if deadline_s is None else deadline_s,
        )

    async def _with_names(self, error: ModelNotFoundError, call: Call) -> ModelNotFoundError:
        """The same with the names that there are, where they can be had soon."""
        if error.available or not error.model:
            return error
        left_s = call.remaining_s(self._clock.monotonic())
        within_s = _NAMES_WAIT_S if left_s is None else min(_NAMES_WAIT_S, left_s)
        better = model_not_found(error.model, await self._models_or_none(within_s))
        better.request_id = error.request_id
        return better

    async def _models_or_none(self, within_s: float) -> list[str]:
        """For an error's text: the models, if the upstream tells them in time."""
        known = self._known_models
        if known is not None and self._clock.monotonic() - known[0] < _MODELS_KEPT_S:
            return known[1]
        if within_s <= 0:
            return []
        try:
            return await self._ask_for_models(within_s)
        except AIClientError:
            return []


def _make_window(limits: Limits, options: ClientOptions) -> SlidingWindow:
    return SlidingWindow(
        limit_requests=limits.requests_per_minute,
        limit_tokens=limits.tokens_per_minute,
        network_delay_s=options.queue.network_delay_s,
    )

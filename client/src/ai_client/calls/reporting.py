"""Builds the events of a call. Callers ask `events.active` first, so that nothing is built for nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ai_client.calls.call import Call
from ai_client.contract.events import (
    Admitted,
    BreakerChanged,
    CacheHit,
    CacheMissed,
    ConcurrencyChanged,
    EventStream,
    Failed,
    FellBack,
    FirstByte,
    KeyRotated,
    Retried,
    Sent,
    Settled,
    Throttled,
)
from ai_client.contract.request import Usage
from ai_client.errors import AIClientError
from ai_client.platform.clock import Clock

if TYPE_CHECKING:
    from ai_client.admission.lanes import ModelLane


class Reporter:
    """One method an event."""

    __slots__ = ("_clock", "events")

    def __init__(self, events: EventStream, clock: Clock) -> None:
        self.events = events
        self._clock = clock

    # These four come with every call: written out, since a dictionary between costs as much as the event.

    def admitted(self, call: Call, *, waited_s: float, tokens: int) -> None:
        request = call.request
        self.events.emit(
            Admitted(
                at=self._clock.wall(),
                request_id=call.request_id,
                tenant=request.tenant,
                model=call.model,
                endpoint=request.endpoint,
                priority=request.priority,
                waited_s=waited_s,
                reserved_tokens=tokens,
            )
        )

    def sent(self, call: Call) -> None:
        request = call.request
        self.events.emit(
            Sent(
                at=self._clock.wall(),
                request_id=call.request_id,
                tenant=request.tenant,
                model=call.model,
                endpoint=request.endpoint,
                attempt=call.attempts,
                key_fingerprint=call.key_fingerprint,
            )
        )

    def first_byte(self, call: Call, *, after_s: float) -> None:
        self.events.emit(FirstByte(**self._of(call), after_s=after_s))

    def retried(self, call: Call, error: AIClientError, *, wait_s: float) -> None:
        status = getattr(error, "status", None)
        self.events.emit(
            Retried(
                **self._of(call),
                attempt=call.attempts,
                wait_s=wait_s,
                error=type(error).__name__,
                status=status,
            )
        )

    def fell_back(self, call: Call, error: AIClientError, *, to_model: str) -> None:
        self.events.emit(FellBack(**self._of(call), to_model=to_model, error=type(error).__name__))

    def cache_hit(self, call: Call, *, shared: bool) -> None:
        self.events.emit(CacheHit(**self._of(call), shared=shared))

    def cache_missed(self, call: Call) -> None:
        request = call.request
        self.events.emit(
            CacheMissed(
                at=self._clock.wall(),
                request_id=call.request_id,
                tenant=request.tenant,
                model=call.model,
                endpoint=request.endpoint,
            )
        )

    def settled(
        self,
        call: Call,
        *,
        status: int,
        cached: bool,
        usage: Usage | None,
        cost_usd: float | None,
        now_s: float,
        first_byte_s: float | None = None,
    ) -> None:
        request = call.request
        self.events.emit(
            Settled(
                at=self._clock.wall(),
                request_id=call.request_id,
                tenant=request.tenant,
                model=call.model,
                endpoint=request.endpoint,
                status=status,
                stream=request.stream,
                cached=cached,
                attempts=call.attempts,
                usage=usage,
                cost_usd=cost_usd,
                latency_s=now_s - call.started_at_s,
                waited_s=call.waited_s,
                upstream_s=call.upstream_s,
                first_byte_s=first_byte_s,
                key_fingerprint=call.key_fingerprint,
                importance=request.importance,
                cost_tags=request.cost_tags,
                asked_model=call.asked_model,
                traceparent=request.headers.get("traceparent", ""),
            )
        )

    def failed(self, call: Call, error: BaseException, *, now_s: float) -> None:
        request = call.request
        code: str = "cancelled"
        status: int | None = None
        if isinstance(error, AIClientError):
            code, status = error.code, getattr(error, "status", error.http_status)
        self.events.emit(
            Failed(
                **self._of(call),
                error=type(error).__name__,
                code=code,
                status=status,
                stream=request.stream,
                attempts=call.attempts,
                latency_s=now_s - call.started_at_s,
                waited_s=call.waited_s,
                upstream_s=call.upstream_s,
                key_fingerprint=call.key_fingerprint,
                importance=request.importance,
                cost_tags=request.cost_tags,
                billed_unknown=call.billed_unknown,
                asked_model=call.asked_model,
                traceparent=request.headers.get("traceparent", ""),
            )
        )

    def throttled(self, lane: ModelLane, *, now_s: float) -> None:
        self.events.emit(
            Throttled(
                at=self._clock.wall(),
                model=lane.model,
                key_fingerprint=lane.key_fingerprint,
                pause_s=max(0.0, lane.throttle.not_before_s - now_s),
                rate_per_s=lane.throttle.rate_per_s(now_s),
            )
        )

    def breaker_changed(self, lane: ModelLane, *, before: str) -> None:
        after = lane.state.breaker.state
        self.events.emit(BreakerChanged(at=self._clock.wall(), model=lane.model, before=before, after=after))

    def concurrency_changed(self, lane: ModelLane, *, before: int) -> None:
        after = lane.adaptive.limit
        self.events.emit(
            ConcurrencyChanged(at=self._clock.wall(), model=lane.model, before=before, after=after)
        )

    def key_rotated(self, before_fingerprint: str, after_fingerprint: str) -> None:
        self.events.emit(
            KeyRotated(
                at=self._clock.wall(),
                before_fingerprint=before_fingerprint,
                after_fingerprint=after_fingerprint,
            )
        )

    def _of(self, call: Call) -> dict[str, Any]:
        """What every event of a request has."""
        return {
            "at": self._clock.wall(),
            "request_id": call.request_id,
            "tenant": call.request.tenant,
            "model": call.model,
            "endpoint": call.request.endpoint,
        }

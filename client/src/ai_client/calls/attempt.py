"""One try of one request upstream, from its permit to the last thing that is booked of it.

Whatever happens, an attempt that was begun is ended once: the permit is released, the ledger's entry is settled,
released or booked as billed-unknown, and the breaker, the throttle and the concurrency limit learn from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msgspec import structs

from ai_client.admission.breaker import BreakerState, counts_as_failure
from ai_client.admission.lane import Permit
from ai_client.admission.lanes import Lanes, ModelLane
from ai_client.admission.meters import Cost, MeterPermit, Meters
from ai_client.admission.scheduler import Scheduler
from ai_client.calls.call import Call
from ai_client.calls.reporting import Reporter
from ai_client.calls.retry import may_have_been_executed
from ai_client.contract.events import FirstByte, Sent
from ai_client.contract.keys import ApiKey
from ai_client.contract.options import ClientOptions
from ai_client.contract.request import Request, Usage
from ai_client.contract.statistics import Statistics
from ai_client.contract.stores import EntryId, Ledger
from ai_client.dialects.http_request import build_wire_request
from ai_client.dialects.limit_headers import rate_limits
from ai_client.dialects.media_bound import characters_of
from ai_client.dialects.token_estimate import Estimate
from ai_client.errors import (
    AIClientError,
    BreakerOpenError,
    DeadlineExceeded,
    LeaseEndedError,
    RateLimitError,
)
from ai_client.platform.clock import Clock
from ai_client.traces.context import HEADER as TRACEPARENT
from ai_client.traces.context import span_context
from ai_client.transport.base import WireRequest

_REQUESTS_LEFT = "x-ratelimit-remaining-requests"
_TOKENS_LEFT = "x-ratelimit-remaining-tokens"
# Of a stream that was cut, what the upstream may have written that nobody has seen.
_TOKENS_UNDER_WAY = 32


@dataclass(slots=True)
class ClientContext:
    """What all attempts of one client share."""

    clock: Clock
    scheduler: Scheduler
    lanes: Lanes
    reporter: Reporter
    statistics: Statistics
    options: ClientOptions
    meters: Meters
    ledger: Ledger | None


class Attempt:
    """See the module. Made by `begin`; ended by one of `answered`, `failed` and `withdraw`, later ones are nothing."""

    __slots__ = (
        "_call",
        "_context",
        "_ended",
        "_entry",
        "_estimate",
        "_period",
        "key",
        "lane",
        "metered",
        "permit",
    )

    def __init__(
        self,
        context: ClientContext,
        call: Call,
        *,
        lane: ModelLane,
        key: ApiKey,
        permit: Permit,
        guess: Estimate,
    ) -> None:
        self.key = key
        self.lane = lane
        self.permit = permit
        self._context = context
        self._call = call
        self._estimate = guess
        self._entry: EntryId | None = None
        #: None that there is: what the breaker refuses must not report as the probe that is under way.
        self._period = -1
        self._ended = False
        #: Its places in the limits of its model and upstream.
        self.metered: Sequence[MeterPermit] = ()

    async def prepare(self) -> None:
        """Asks the breaker again, which may have opened while we waited, and sets money aside."""
        breaker = self.lane.state.breaker
        if breaker.state is BreakerState.CLOSED:
            self._period = breaker.period
        else:
            self._ask_breaker()
        context, call = self._context, self._call
        if context.ledger is not None and call.api.meters(call.request.body):
            self._entry = await context.ledger.reserve(
                request_id=call.request_id,
                model=call.model,
                tenant=call.request.tenant,
                upper=self._estimate.bound.usage,
                tags=call.request.cost_tags,
            )
            call.entry = self._entry

    def wire_request(self) -> WireRequest:
        call = self._call
        call.attempts += 1
        call.key_fingerprint = self.key.fingerprint
        target = call.target
        assert target is not None  # noqa: S101 - for the type checker; no attempt begins without
        return build_wire_request(
            self._traced(call),
            upstream=target.upstream,
            model=target.name_there,
            body=call.body(),
            key=self.key,
            idempotency_key=call.idempotency_key,
            request_id=call.request_id,
            on_sent=self._mark_sent,
        )

    def _traced(self, call: Call) -> Request:
        """The request with our own span as the parent of the upstream's, where spans are written."""
        request, share = call.request, self._context.options.trace_share
        if share is None:
            return request
        given = request.headers.get(TRACEPARENT, "")
        place = span_context(call.request_id, traceparent=given, sample_share=share)
        return structs.replace(request, headers={**request.headers, TRACEPARENT: place.header})

    def note_first_byte(self, after_s: float) -> None:
        """The first chunk of a stream came."""
        if self._context.reporter.events.wants(FirstByte):
            self._context.reporter.first_byte(self._call, after_s=after_s)

    def answered(
        self,
        usage: Usage | None,
        *,
        headers: Mapping[str, str],
        passed_bytes: int,
        first_byte_s: float | None = None,
    ) -> float | None:
        """A whole answer came; what it cost, where that is known. Where it is not, `passed_bytes` bound its output.

        Of a stream the time to its first byte counts, since its end waits for whoever reads it.
        """
        if self._ended:
            return None
        self._ended = True
        now_s = self._context.clock.monotonic()
        try:
            cost_usd = self._settle(usage, passed_bytes)
            self._learn_from_answer(usage, now_s, headers=headers, first_byte_s=first_byte_s)
        finally:
            # Whatever fails in between, the place is free again.
            self._end(now_s, is_error=False)
        return cost_usd

    def _learn_from_answer(
        self, usage: Usage | None, now_s: float, *, headers: Mapping[str, str], first_byte_s: float | None
    ) -> None:
        lane = self.lane
        before = lane.state.breaker.state
        lane.state.is_known = True
        lane.state.breaker.succeeded(self._period)
        if before is not BreakerState.CLOSED:
            self._tell_breaker(before)
        tokens = 0 if usage is None else usage.output_tokens or usage.input_tokens
        latency_s = now_s - self.permit.sent_at_s
        if first_byte_s is not None:
            tokens, latency_s = 1, first_byte_s
        limit = lane.adaptive.limit
        if lane.adaptive.observe(latency_s, tokens, in_flight=lane.in_flight):
            self._tell_concurrency(limit)
        if headers.get(_REQUESTS_LEFT) == "0" or headers.get(_TOKENS_LEFT) == "0":
            self._heed(headers, now_s)

    def failed(
        self,
        error: BaseException,
        *,
        usage: Usage | None = None,
        passed_bytes: int | None = None,
        has_finished: bool = False,
    ) -> None:
        """No whole answer came. What was sent may be executed and billed all the same.

        `usage` is what the upstream told until then, all of it where it `has_finished`; `passed_bytes` bound the
        output that came, None where none did.
        """
        if isinstance(error, LeaseEndedError):
            self.withdraw()
        if self._ended:
            return
        self._ended = True
        now_s = self._context.clock.monotonic()
        try:
            self._book_failure(
                error, now_s, usage=usage, passed_bytes=passed_bytes, has_finished=has_finished
            )
        finally:
            self._end(now_s, is_error=True)

    def _book_failure(
        self,
        error: BaseException,
        now_s: float,
        *,
        usage: Usage | None,
        passed_bytes: int | None,
        has_finished: bool,
    ) -> None:
        context, breaker = self._context, self.lane.state.breaker
        before = breaker.state
        executed = self.permit.was_sent
        if isinstance(error, AIClientError) and not isinstance(error, DeadlineExceeded):
            answer_began = passed_bytes is not None or usage is not None
            executed = executed and (answer_began or may_have_been_executed(error))
            self._learn_from(error, now_s)
        if self.permit.was_sent and not executed:
            context.scheduler.settle(self.permit, 0)
            self._settle_meters(Cost())
        if executed and usage is not None and has_finished:
            self._settle(usage, 0)
        else:
            self._end_money(executed=executed, most=self._most(usage, passed_bytes))
        breaker.gave_up(self._period)
        if breaker.state is not before:
            self._tell_breaker(before)

    def _most(self, usage: Usage | None, passed_bytes: int | None) -> Usage | None:
        """What a call may have used at most of which so much came; None where nothing is known of that.

        No token of a text is less than a byte, so the bytes that came bound the tokens that came; a few more may have
        been on their way. A model that thinks unseen may have written all that it was allowed to, as may an upstream
        that takes no notice of a stream that is cut.
        """
        target = self._call.target
        writes_on = target is not None and target.upstream.bills_cut_streams
        if passed_bytes is None or writes_on or self._estimate.bound.thinks_unseen:
            return None
        told, upper = Usage(0, 0) if usage is None else usage, self._estimate.bound.usage
        # Its tier, and what kinds of tokens may be among them, are as dear as they were before.
        return structs.replace(
            upper,
            input_tokens=max(upper.input_tokens, told.input_tokens),
            output_tokens=max(passed_bytes, told.output_tokens) + _TOKENS_UNDER_WAY,
        )

    def _learn_from(self, error: AIClientError, now_s: float) -> None:
        if isinstance(error, RateLimitError):
            self.lane.throttle.refused(
                now_s, sent_at_s=self.permit.sent_at_s, retry_after_s=error.retry_after_s
            )
            self._context.statistics.throttled += 1
            self._tell_throttle(now_s)
        elif counts_as_failure(error):
            self.lane.state.breaker.failed(self._period, now_s)
            self._cut_concurrency(now_s)
        elif self.permit.was_sent:
            self.lane.state.breaker.succeeded(self._period)

    def withdraw(self) -> None:
        """It does not go out: nothing is spent and nothing learnt."""
        if self._ended:
            return
        self._ended = True
        try:
            self._end_money(executed=False)
            self.lane.state.breaker.gave_up(self._period)
        finally:
            self._context.scheduler.release(self.permit)
            self._leave_meters()

    def _mark_sent(self) -> None:
        self._context.scheduler.sent(self.permit)
        if self.metered:
            now_s = self._context.clock.monotonic()
            for each in self.metered:
                each.sent(now_s)
        if self._context.reporter.events.wants(Sent):
            self._context.reporter.sent(self._call)

    def _ask_breaker(self) -> None:
        breaker, now_s = self.lane.state.breaker, self._context.clock.monotonic()
        before = breaker.state
        period = breaker.allow(now_s)
        if period is None:
            raise BreakerOpenError(self.lane.model, retry_after_s=breaker.retry_after_s(now_s))
        self._period = period
        self._tell_breaker(before)

    def _settle(self, usage: Usage | None, passed_bytes: int) -> float | None:
        context, entry = self._context, self._entry
        characters = characters_of(self._call.request.endpoint, self._call.request.body)
        if usage is None:
            if context.ledger is not None and entry is not None and characters:
                self._entry = None
                return context.ledger.settle(entry, Usage(0, 0, characters=characters))
            self._end_money(executed=True, most=self._most(None, passed_bytes))
            return None
        context.scheduler.settle(self.permit, usage.input_tokens + usage.output_tokens)
        images = pictures(self._call, self._estimate)
        if self.metered:
            self._settle_meters(Cost(usage.input_tokens, usage.output_tokens, images))
        self.lane.state.rate.learn(self._estimate.input_bytes, usage.input_tokens)
        if context.ledger is None or entry is None:
            return None
        self._entry = None
        target = self._call.target
        if usage.told_nusd is not None and (target is None or not target.upstream.tells_cost):
            usage = structs.replace(usage, told_nusd=None)
        if images or characters:
            usage = structs.replace(usage, images=images or usage.images, characters=characters)
        return context.ledger.settle(entry, usage)

    def _settle_meters(self, cost: Cost) -> None:
        for each in self.metered:
            each.settle(cost)

    def _leave_meters(self) -> None:
        for each in self.metered:
            each.ended()

    def _end_money(self, *, executed: bool, most: Usage | None = None) -> None:
        ledger, entry = self._context.ledger, self._entry
        self._entry = None
        if ledger is None or entry is None:
            return
        if executed:
            ledger.billed_unknown(entry, most)
            self._call.billed_unknown = True
        else:
            ledger.release(entry)

    def _end(self, now_s: float, *, is_error: bool) -> None:
        context = self._context
        context.statistics.attempt_ended(self._call.model, is_error=is_error)
        self._call.upstream_s += now_s - self.permit.admitted_at_s
        context.scheduler.release(self.permit)
        if self.metered:
            self._leave_meters()

    def _heed(self, headers: Mapping[str, str], now_s: float) -> None:
        limits = rate_limits(headers)
        context = self._context
        if limits is not None and self.lane.throttle.observe(
            limits, now_s, room=context.scheduler.window.fits(1, now_s)
        ):
            self._tell_throttle(now_s)

    def _cut_concurrency(self, now_s: float) -> None:
        limit = self.lane.adaptive.limit
        if self.permit.was_sent and self.lane.adaptive.failed(now_s):
            self._tell_concurrency(limit)

    def _tell_throttle(self, now_s: float) -> None:
        self._context.scheduler.lane_changed(self.lane)
        if self._context.reporter.events.active:
            self._context.reporter.throttled(self.lane, now_s=now_s)

    def _tell_breaker(self, before: BreakerState) -> None:
        if self._context.reporter.events.active and self.lane.state.breaker.state is not before:
            self._context.reporter.breaker_changed(self.lane, before=before)

    def _tell_concurrency(self, before: int) -> None:
        self._context.scheduler.lane_changed(self.lane)
        if self._context.reporter.events.active:
            self._context.reporter.concurrency_changed(self.lane, before=before)


def pictures(call: Call, guess: Estimate) -> int:
    """How many pictures a call makes."""
    return guess.bound.usage.images if call.request.endpoint.startswith("images/") else 0

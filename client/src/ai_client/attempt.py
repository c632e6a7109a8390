"""One try of one request upstream, from its permit to the last thing that is booked of it.

Whatever happens, an attempt that was begun is ended once: the permit is released, the ledger's entry is settled,
released or booked as billed-unknown, and the breaker, the throttle and the concurrency limit learn from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ai_client.breaker import BreakerState, counts_as_failure
from ai_client.call import Call
from ai_client.clock import Clock
from ai_client.errors import AIClientError, BreakerOpenError, DeadlineExceeded, RateLimitError
from ai_client.estimate import Estimate, estimate
from ai_client.events import FirstByte, Sent
from ai_client.headers import rate_limits
from ai_client.keys import ApiKey
from ai_client.lanes import Lanes, ModelLane
from ai_client.options import ClientOptions
from ai_client.ports import EntryId, Ledger
from ai_client.reporting import Reporter
from ai_client.request import Usage
from ai_client.retry import may_have_been_executed
from ai_client.scheduler import Permit, Scheduler
from ai_client.stats import Statistics
from ai_client.transport.base import WireRequest
from ai_client.wire import build_wire_request

_REQUESTS_LEFT = "x-ratelimit-remaining-requests"
_TOKENS_LEFT = "x-ratelimit-remaining-tokens"


@dataclass(slots=True)
class Desk:
    """What all attempts of one client share."""

    base_url: str
    clock: Clock
    scheduler: Scheduler
    lanes: Lanes
    reporter: Reporter
    statistics: Statistics
    options: ClientOptions
    ledger: Ledger | None


class Attempt:
    """See the module. Made by `begin`; ended by one of `answered`, `failed` and `withdraw`, later ones are nothing."""

    __slots__ = ("_call", "_desk", "_ended", "_entry", "_estimate", "_is_probe", "key", "lane", "permit")

    def __init__(
        self, desk: Desk, call: Call, *, lane: ModelLane, key: ApiKey, permit: Permit, guess: Estimate
    ) -> None:
        self.key = key
        self.lane = lane
        self.permit = permit
        self._desk = desk
        self._call = call
        self._estimate = guess
        self._entry: EntryId | None = None
        self._is_probe = False
        self._ended = False

    async def prepare(self) -> None:
        """Asks the breaker again, which may have opened while we waited, and sets money aside."""
        breaker = self.lane.state.breaker
        if breaker.state is not BreakerState.CLOSED:
            self._ask_breaker()
        desk, call = self._desk, self._call
        if desk.ledger is not None and call.request.endpoint != "models":
            self._entry = await desk.ledger.reserve(
                request_id=call.request_id,
                model=call.model,
                tenant=call.request.tenant,
                upper=self._estimate.upper,
                tags=call.request.cost_tags,
            )

    def wire_request(self) -> WireRequest:
        call = self._call
        call.attempts += 1
        call.key_fingerprint = self.key.fingerprint
        return build_wire_request(
            call.request,
            base_url=self._desk.base_url,
            body=call.body(),
            key=self.key,
            idempotency_key=call.idempotency_key,
            request_id=call.request_id,
            on_sent=self._mark_sent,
        )

    def note_first_byte(self, after_s: float) -> None:
        """The first chunk of a stream came."""
        if self._desk.reporter.events.wants(FirstByte):
            self._desk.reporter.first_byte(self._call, after_s=after_s)

    def answered(
        self, usage: Usage | None, *, headers: Mapping[str, str], first_byte_s: float | None = None
    ) -> float | None:
        """A whole answer came; what it cost, where that is known.

        Of a stream the time to its first byte counts, since its end waits for whoever reads it.
        """
        if self._ended:
            return None
        self._ended = True
        desk, lane = self._desk, self.lane
        now_s = desk.clock.monotonic()
        cost_usd = self._settle(usage)
        before = lane.state.breaker.state
        lane.state.is_known = True
        lane.state.breaker.succeeded()
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
        self._end(now_s, is_error=False)
        return cost_usd

    def failed(self, error: BaseException) -> None:
        """No whole answer came. What was sent may be executed and billed all the same."""
        if self._ended:
            return
        self._ended = True
        desk, breaker = self._desk, self.lane.state.breaker
        now_s, before = desk.clock.monotonic(), breaker.state
        executed = self.permit.was_sent
        if isinstance(error, AIClientError) and not isinstance(error, DeadlineExceeded):
            executed = executed and may_have_been_executed(error)
            self._learn_from(error, now_s)
        if self.permit.was_sent and not executed:
            desk.scheduler.settle(self.permit, 0)
        self._end_money(executed=executed)
        if self._is_probe and breaker.state is BreakerState.HALF_OPEN:
            breaker.gave_up()
        if breaker.state is not before:
            self._tell_breaker(before)
        self._end(now_s, is_error=True)

    def _learn_from(self, error: AIClientError, now_s: float) -> None:
        if isinstance(error, RateLimitError):
            self.lane.throttle.refused(
                now_s, sent_at_s=self.permit.sent_at_s, retry_after_s=error.retry_after_s
            )
            self._desk.statistics.throttled += 1
            self._tell_throttle(now_s)
        elif counts_as_failure(error):
            self.lane.state.breaker.failed(now_s)
            self._cut_concurrency(now_s)
        elif self.permit.was_sent:
            self.lane.state.breaker.succeeded()

    def withdraw(self) -> None:
        """It does not go out: nothing is spent and nothing learnt."""
        if self._ended:
            return
        self._ended = True
        self._end_money(executed=False)
        if self._is_probe:
            self.lane.state.breaker.gave_up()
        self._desk.scheduler.release(self.permit)

    def _mark_sent(self) -> None:
        self._desk.scheduler.sent(self.permit)
        if self._desk.reporter.events.wants(Sent):
            self._desk.reporter.sent(self._call)

    def _ask_breaker(self) -> None:
        breaker, now_s = self.lane.state.breaker, self._desk.clock.monotonic()
        before = breaker.state
        if not breaker.allow(now_s):
            raise BreakerOpenError(self.lane.model, retry_after_s=breaker.retry_after_s(now_s))
        self._is_probe = True
        self._tell_breaker(before)

    def _settle(self, usage: Usage | None) -> float | None:
        desk, entry = self._desk, self._entry
        if usage is None:
            self._end_money(executed=True)
            return None
        desk.scheduler.settle(self.permit, usage.total_tokens)
        self.lane.state.rate.learn(self._estimate.input_bytes, usage.input_tokens)
        if desk.ledger is None or entry is None:
            return None
        self._entry = None
        return desk.ledger.settle(entry, usage)

    def _end_money(self, *, executed: bool) -> None:
        ledger, entry = self._desk.ledger, self._entry
        self._entry = None
        if ledger is None or entry is None:
            return
        if executed:
            ledger.billed_unknown(entry)
            self._call.billed_unknown = True
        else:
            ledger.release(entry)

    def _end(self, now_s: float, *, is_error: bool) -> None:
        desk = self._desk
        desk.statistics.attempts += 1
        desk.statistics.attempt_errors += is_error
        self._call.upstream_s += now_s - self.permit.admitted_at_s
        desk.scheduler.release(self.permit)

    def _heed(self, headers: Mapping[str, str], now_s: float) -> None:
        limits = rate_limits(headers)
        desk = self._desk
        if limits is not None and self.lane.throttle.observe(
            limits, now_s, room=desk.scheduler.window.fits(1, now_s)
        ):
            self._tell_throttle(now_s)

    def _cut_concurrency(self, now_s: float) -> None:
        limit = self.lane.adaptive.limit
        if self.permit.was_sent and self.lane.adaptive.failed(now_s):
            self._tell_concurrency(limit)

    def _tell_throttle(self, now_s: float) -> None:
        self._desk.scheduler.lane_changed(self.lane)
        if self._desk.reporter.events.active:
            self._desk.reporter.throttled(self.lane, now_s=now_s)

    def _tell_breaker(self, before: BreakerState) -> None:
        if self._desk.reporter.events.active and self.lane.state.breaker.state is not before:
            self._desk.reporter.breaker_changed(self.lane, before=before)

    def _tell_concurrency(self, before: int) -> None:
        self._desk.scheduler.lane_changed(self.lane)
        if self._desk.reporter.events.active:
            self._desk.reporter.concurrency_changed(self.lane, before=before)


async def begin(desk: Desk, call: Call, key: ApiKey) -> Attempt:
    """Waits for leave to send `call` with `key`, and sets its money aside.

    Raises what the scheduler and the ledger raise, and BreakerOpenError; then nothing is held any more.
    """
    lane = desk.lanes.lane(call.model, key)
    asked_at_s = desk.clock.monotonic()
    breaker = lane.state.breaker
    if breaker.is_closed_to(asked_at_s):
        raise BreakerOpenError(call.model, retry_after_s=breaker.retry_after_s(asked_at_s))
    guess = estimate(call.request, call.body() or b"", lane.state.rate, desk.options)
    tokens = guess.reserve(desk.scheduler.window.limit_tokens)
    permit = await desk.scheduler.acquire(
        lane,
        tenant=call.request.tenant,
        priority=call.request.priority,
        tokens=tokens,
        deadline_at_s=call.deadline_at_s,
    )
    waited_s = permit.admitted_at_s - asked_at_s
    call.waited_s += waited_s
    attempt = Attempt(desk, call, lane=lane, key=key, permit=permit, guess=guess)
    try:
        if desk.reporter.events.active:
            desk.reporter.admitted(call, waited_s=waited_s, tokens=tokens)
        await attempt.prepare()
    except BaseException:
        attempt.withdraw()
        raise
    return attempt

"""How an attempt begins: what it may take, whether a hard budget can hold it, and its turn."""

from __future__ import annotations

from collections.abc import Sequence

from ai_client.admission.lanes import ModelLane
from ai_client.admission.meters import Cost, MeterPermit
from ai_client.admission.scheduler import parked_error
from ai_client.calls.attempt import Attempt, ClientContext, pictures
from ai_client.calls.call import Call
from ai_client.contract.keys import ApiKey
from ai_client.contract.stores import Ledger
from ai_client.dialects.token_estimate import Estimate, estimate
from ai_client.errors import BadRequestError, BreakerOpenError


def _within_budget(
    context: ClientContext, ledger: Ledger, call: Call, guess: Estimate, lane: ModelLane
) -> Estimate:
    """The estimate of a request as it has to be sent for its bound to hold. Raises BadRequestError without one."""
    bound = guess.bound
    missing = bound.unbounded or ledger.unpriced(call.model, bound.usage)
    if missing is not None:
        raise BadRequestError(
            f"request {call.request_id}",
            f"can't be held to the hard budget of tenant {call.request.tenant!r}: {missing.param} {missing.reason}",
            remedy=missing.remedy,
            param=missing.param,
            upstream_code="cost_unbounded",
        )
    to_send = bound.output_to_send
    if to_send is None or call.output_bound == to_send or (call.is_openai and not bound.is_output_open):
        return guess
    call.output_bound = to_send
    return _estimated(context, call, lane)


def _estimated(context: ClientContext, call: Call, lane: ModelLane) -> Estimate:
    # What the upstream calls it says what model it is, if anything does.
    body, options = call.body() or b"", context.options
    return estimate(
        call.request, body, lane.state.rate, options, model=call.name_there, may_cost=call.may_cost
    )


def _check_model(call: Call, lane: ModelLane, now_s: float, patience_s: float) -> None:
    """Raises BreakerOpenError where the model is left alone, RateLimitError where it pauses beyond `patience_s`."""
    breaker = lane.state.breaker
    if breaker.rejects(now_s):
        raise BreakerOpenError(call.model, retry_after_s=breaker.retry_after_s(now_s))
    parked_s = lane.throttle.parks(now_s, patience_s)
    if parked_s is not None:
        raise parked_error(call.model, parked_s)


def _guess(context: ClientContext, call: Call, lane: ModelLane) -> Estimate:
    """What it may take; of a tenant with a hard budget, as it has to be sent to stay within. Raises BadRequestError."""
    guess, ledger, request = _estimated(context, call, lane), context.ledger, call.request
    if ledger is not None and ledger.is_hard(request.tenant) and call.may_cost:
        return _within_budget(context, ledger, call, guess, lane)
    return guess


async def _metered(context: ClientContext, call: Call, guess: Estimate) -> Sequence[MeterPermit]:
    """Waits for room in the limits of the model and of its upstream."""
    bound = guess.bound
    written = context.options.default_output_tokens if bound.is_output_open else bound.usage.output_tokens
    written = min(written, guess.likely_tokens)
    upstream = "" if call.target is None else call.target.upstream.name
    return await context.meters.acquire(
        label=call.model,
        upstream=upstream,
        cost=Cost(guess.likely_tokens - written, written, pictures(call, guess)),
        priority=call.request.priority,
        deadline_at_s=call.deadline_at_s,
    )


async def begin(context: ClientContext, call: Call, key: ApiKey, *, patience_s: float) -> Attempt:
    """Waits for leave to send `call` with `key`, and sets its money aside.

    Raises what the scheduler and the ledger raise, and BreakerOpenError; then nothing is held any more.
    """
    lane = context.lanes.lane(call.model, key)
    asked_at_s = context.clock.monotonic()
    _check_model(call, lane, asked_at_s, patience_s)
    call.usage_asked = call.usage_asked and lane.state.takes_stream_options
    guess = _guess(context, call, lane)
    tokens = guess.reserve(context.scheduler.window.largest_tokens)
    metered = () if context.meters.is_empty else await _metered(context, call, guess)
    try:
        permit = await context.scheduler.acquire(
            lane,
            tenant=call.request.tenant,
            priority=call.request.priority,
            tokens=tokens,
            deadline_at_s=call.deadline_at_s,
            patience_s=patience_s,
        )
    except BaseException:
        for each in metered:
            each.ended()
        raise
    waited_s = permit.admitted_at_s - asked_at_s
    call.waited_s += waited_s
    attempt = Attempt(context, call, lane=lane, key=key, permit=permit, guess=guess)
    attempt.metered = metered
    try:
        if call.request.on_admitted is not None:
            call.request.on_admitted()
        if context.reporter.events.active:
            context.reporter.admitted(call, waited_s=waited_s, tokens=tokens)
        await attempt.prepare()
    except BaseException:
        attempt.withdraw()
        raise
    return attempt

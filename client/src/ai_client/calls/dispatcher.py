"""Carries a call to an answer: attempts, retries, key rotation, fallback. The decisions are elsewhere."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from ai_client.calls.attempt import Attempt, ClientContext
from ai_client.calls.beginning import begin
from ai_client.calls.call import Call
from ai_client.calls.fallback import (
    RETRIES_BEFORE_FALLBACK,
    Course,
    candidates,
    is_account_spent,
    may_fall_back,
)
from ai_client.calls.retry import Again, GiveUp, RetryBudget, decide, is_resend_safe
from ai_client.calls.streams import UpstreamStream
from ai_client.calls.targets import Target, Targets
from ai_client.contract.apis import Api
from ai_client.contract.keys import ApiKey
from ai_client.contract.request import Response
from ai_client.dialects.body_reader import BodyVerdict, read_answer
from ai_client.dialects.error_answers import (
    error_from_answer,
    error_within_answer,
    refuses_stream_options,
)
from ai_client.errors import (
    AIClientError,
    AuthenticationError,
    BadRequestError,
    LeaseEndedError,
    MalformedResponseError,
    MaxRetriesExceeded,
    RateLimitError,
)
from ai_client.transport.base import Transport, WireResponse, WireStream

Answer = TypeVar("Answer")

_LONGEST_ERROR_BYTES = 64 * 1024


class Dispatcher:
    """Sends calls through one transport, signed by one key provider."""

    def __init__(
        self, context: ClientContext, *, transport: Transport, targets: Targets, random_source: random.Random
    ) -> None:
        self._context = context
        self._transport = transport
        self._targets = targets
        self._random = random_source
        retry = context.options.retry
        self._budget = RetryBudget(share=retry.budget_share, size=retry.budget_size)

    # Where nothing is done after an await, the awaitable itself is handed on: each frame in between is one more
    # object to step through and to be looked at by the garbage collector, for each call in flight.

    def whole(self, call: Call) -> Awaitable[Response]:
        """The whole answer."""
        return self._until_answered(call, self._fetch, self._course(call))

    async def opened(self, call: Call) -> UpstreamStream:
        """A stream whose answer has begun, or at least its comments; whoever gets it closes it."""
        course = self._course(call)
        stream = await self._until_answered(call, self._open, course)
        if not stream.has_begun:
            # Only comments came so far. What fails now is no error to the reader yet.
            stream.reopen = partial(self._reopen, call, course)
        return stream

    def _reopen(self, call: Call, course: Course, error: AIClientError) -> Awaitable[UpstreamStream]:
        return self._until_answered(call, self._open, course, failure=error)

    def _course(self, call: Call) -> Course:
        self._budget.deposit()
        targets, asked = self._targets_of(call)
        call.aim(targets[0])
        return Course(targets, call.keys.named(call.home_fingerprint), asked=asked)

    def _targets_of(self, call: Call) -> tuple[Sequence[Target], int]:
        """Where the call may be answered, in order, each once, and how many of them have the asked model.

        What was stored before is asked for at its home.
        """
        if call.home is not None:
            return (call.home,), 1
        api = call.api
        asked = self._targets.of(call.model, api)
        chain = self._context.options.fallback_chain if api.may_fall_back else ()
        if not chain:
            return asked, len(asked)
        models = candidates(call.model, chain)
        found = {target.label: target for target in asked}
        for model in models[1:]:
            found |= {target.label: target for target in self._able(model, api) if target.label not in found}
        return tuple(found.values()), len(asked)

    def _able(self, model: str, api: Api) -> Sequence[Target]:
        """A model of the chain that does not speak the caller's API is passed over; the asked one has to."""
        try:
            return self._targets.of(model, api)
        except BadRequestError:
            return ()

    async def _until_answered(
        self,
        call: Call,
        once: Callable[[Attempt, Call], Awaitable[Answer]],
        course: Course,
        *,
        failure: AIClientError | None = None,
    ) -> Answer:
        """Tries, each after the failure of the one before: of the same model, then of the next."""
        try:
            while True:
                if failure is not None:
                    await self._go_on(call, course, failure)
                try:
                    attempt = await begin(
                        self._context, call, course.key, patience_s=self._patience_s(course)
                    )
                    answer = await once(attempt, call)
                except LeaseEndedError:
                    # Nothing was sent: it is admitted again under what may be used now.
                    call.attempts, failure = max(0, call.attempts - 1), None
                except AIClientError as error:
                    failure = error
                else:
                    if course.fallbacks_paid:
                        # It answered: this is no outage that falls back on everything, which the budget is for.
                        self._budget.give_back(course.fallbacks_paid)
                        course.fallbacks_paid = 0
                    return answer
        finally:
            # An error holds the frames that it came through. Where one holds it too, both and the request's body stay
            # until the collector looks for cycles; so here and below none does.
            failure = None

    async def _go_on(self, call: Call, course: Course, failure: AIClientError) -> None:
        """Returns when the next try may begin; raises what the call ends with where there is none."""
        if call.usage_asked and refuses_stream_options(failure):
            self._context.lanes.model(call.model).takes_stream_options = False
            return
        try:
            if isinstance(failure, AuthenticationError):
                course.key = self._other_key(call, failure, refused=course.key)
                return
            again = self._again(call, failure, course)
        except AIClientError as final:
            if not self._fall_back(call, course, final):
                del failure
                raise
            return
        await self._wait(call, failure, again)
        course.retry += 1
        course.key = call.keys.named(call.home_fingerprint)

    def _fall_back(self, call: Call, course: Course, final: AIClientError) -> bool:
        """Whether another model is asked: the next, or where the account has no credit, the next of another one."""
        is_spent = is_account_spent(final)
        following = course.following(is_account_spent=is_spent)
        if following is None:
            return False
        leaves = course.leaves_asked_model(following)
        if not (is_spent or may_fall_back(final, leaves_asked_model=leaves)):
            return False
        # Another model's attempt is extra load as a retry is, unless nothing was sent so far.
        if call.attempts and not isinstance(final, RateLimitError):
            if not self._budget.withdraw():
                return False
            course.fallbacks_paid += 1
        self._context.statistics.fallbacks += 1
        target = course.targets[following]
        if self._context.reporter.events.active:
            self._context.reporter.fell_back(call, final, to_model=target.label)
        course.index, course.retry = following, 0
        call.aim(target)
        course.key = call.keys.named(call.home_fingerprint)
        return True

    def _other_key(self, call: Call, error: AuthenticationError, *, refused: ApiKey) -> ApiKey:
        """The key that replaces `refused`, for one more try. Raises `error` where there is none."""
        other = None if call.resent_for_key else call.keys.after_refusal(refused)
        if other is None:
            try:
                raise error
            finally:
                del error
        call.resent_for_key = True
        if self._context.reporter.events.active:
            self._context.reporter.key_rotated(refused.fingerprint, other.fingerprint)
        return other

    def _patience_s(self, course: Course) -> float:
        """How long an upstream may keep the call waiting."""
        retry = self._context.options.retry
        return retry.longest_wait_s if course.is_last else retry.longest_wait_before_fallback_s

    def _again(self, call: Call, error: AIClientError, course: Course) -> Again:
        """How the call goes on with this model after `error`; raises what it ends with otherwise."""
        most = self._context.options.retry.max_retries
        verdict = decide(
            error,
            retry=course.retry,
            max_retries=most if course.is_last else min(RETRIES_BEFORE_FALLBACK, most),
            resend_safe=is_resend_safe(call.request, self._context.options.retry),
            options=self._context.options.retry,
            budget=self._budget,
            random_source=self._random,
            remaining_s=call.remaining_s(self._context.clock.monotonic()),
            patience_s=self._patience_s(course),
        )
        if isinstance(verdict, Again):
            return verdict
        if verdict is GiveUp.FAILED:
            try:
                raise error
            finally:
                del error
        raise MaxRetriesExceeded(
            f"request {call.request_id}",
            attempts=call.attempts,
            last=error,
            budget_spent=verdict is GiveUp.BUDGET_SPENT,
            request_id=call.request_id,
        ) from error

    async def _wait(self, call: Call, error: AIClientError, again: Again) -> None:
        context = self._context
        context.statistics.retries += 1
        if context.reporter.events.active:
            context.reporter.retried(call, error, wait_s=again.wait_s)
        call.waited_s += again.wait_s
        await context.clock.sleep_until(context.clock.monotonic() + again.wait_s)

    async def _fetch(self, attempt: Attempt, call: Call) -> Response:
        verdict: BodyVerdict | None = None
        try:
            fetched = self._transport.fetch(attempt.wire_request())
            answer = await (fetched if call.deadline_at_s is None else self._within_deadline(call, fetched))
            if answer.status >= 300:
                raise self._error(call, answer, attempt.key)  # noqa: TRY301 - it ends the attempt as others do
            verdict = read_answer(answer.body, answer.headers, call.request.endpoint, call.request.body)
            if verdict.fault is not None or verdict.trouble is not None:
                raise self._error_within(call, answer, verdict, attempt.key)  # noqa: TRY301 - likewise
        except BaseException as error:
            attempt.failed(error, usage=None if verdict is None else verdict.usage, has_finished=True)
            raise
        usage = call.counted(verdict.usage)
        cost_usd = attempt.answered(usage, headers=answer.headers, passed_bytes=len(answer.body))
        response = Response(
            status=answer.status,
            headers=answer.headers,
            body=answer.body,
            model=call.model,
            attempts=call.attempts,
            usage=usage,
            cost_usd=cost_usd,
            request_id=call.request_id,
        )
        response.parsed = verdict.value
        return response

    async def _open(self, attempt: Attempt, call: Call) -> UpstreamStream:
        try:
            wire = await self._begin_stream(attempt, call)
        except BaseException as error:
            attempt.failed(error)
            raise
        stream = UpstreamStream(
            wire,
            attempt,
            call,
            clock=self._context.clock,
            heads_wait_s=self._context.options.retry.heads_wait_s,
        )
        await stream.begin()
        return stream

    async def _begin_stream(self, attempt: Attempt, call: Call) -> WireStream:
        wire = attempt.wire_request()
        if call.deadline_at_s is None:
            stream = await self._transport.open(wire)
        else:
            stream = await self._within_deadline(call, self._transport.open(wire))
        if stream.status >= 300:
            raise self._error(call, await _read_refusal(stream), attempt.key)
        return stream

    async def _within_deadline(self, call: Call, work: Awaitable[Answer]) -> Answer:
        remaining_s = call.remaining_s(self._context.clock.monotonic())
        try:
            async with asyncio.timeout(remaining_s):
                return await work
        except TimeoutError:
            raise call.deadline_error("upstream") from None

    def _error(self, call: Call, answer: WireResponse, key: ApiKey) -> AIClientError:
        return error_from_answer(
            answer.status,
            answer.headers,
            answer.body,
            model=call.model,
            key_fingerprint=key.fingerprint,
            request_id=call.request_id,
            wall_s=self._context.clock.wall(),
        )

    def _error_within(
        self, call: Call, answer: WireResponse, verdict: BodyVerdict, key: ApiKey
    ) -> AIClientError:
        if verdict.fault is None:
            error: AIClientError = MalformedResponseError("upstream", f"answered with {verdict.trouble}")
            error.request_id = call.request_id
            return error
        return error_within_answer(
            verdict.fault,
            answer.headers,
            model=call.model,
            key_fingerprint=key.fingerprint,
            request_id=call.request_id,
            wall_s=self._context.clock.wall(),
        )


async def _read_refusal(stream: WireStream) -> WireResponse:
    """The body of an error answer, as far as it may matter."""
    body = b""
    try:
        while len(body) <= _LONGEST_ERROR_BYTES and (piece := await stream.read()):
            body += piece
    finally:
        await stream.aclose()
    return WireResponse(stream.status, stream.headers, body)

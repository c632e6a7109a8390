"""Carries a call to an answer: attempts, retries, key rotation, fallback. The decisions are elsewhere."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from ai_client.attempt import Attempt, Desk, begin
from ai_client.call import Call
from ai_client.errors import (
    AIClientError,
    AuthenticationError,
    MalformedResponseError,
    MaxRetriesExceeded,
    RateLimitError,
)
from ai_client.fallback import RETRIES_BEFORE_FALLBACK, candidates, may_fall_back
from ai_client.json_text import read_json
from ai_client.keys import ApiKey, KeyProvider
from ai_client.request import Response, Usage, usage_from_json
from ai_client.retry import Again, GiveUp, RetryBudget, decide, is_resend_safe
from ai_client.sse import usage_at_end
from ai_client.transport.base import Transport, WireResponse, WireStream
from ai_client.upstream import error_from_answer, parse_error_body

Answer = TypeVar("Answer")

_CHAT_ENDPOINTS = frozenset(("chat/completions", "completions"))
# A larger answer (embeddings, mostly) is not parsed only to learn its usage, which stands at its end.
_LARGE_ANSWER_BYTES = 64 * 1024
_LONGEST_ERROR_BYTES = 64 * 1024


class Dispatcher:
    """Sends calls through one transport, signed by one key provider."""

    def __init__(
        self, desk: Desk, *, transport: Transport, keys: KeyProvider, random_source: random.Random
    ) -> None:
        self._desk = desk
        self._transport = transport
        self._keys = keys
        self._random = random_source
        retry = desk.options.retry
        self._budget = RetryBudget(share=retry.budget_share, size=retry.budget_size)

    # Where nothing is done after an await, the awaitable itself is handed on: each frame in between is one more
    # object to step through and to be looked at by the garbage collector, for each call in flight.

    def whole(self, call: Call) -> Awaitable[Response]:
        """The whole answer."""
        return self._through_models(call, self._fetch)

    def opened(self, call: Call) -> Awaitable[tuple[Attempt, WireStream]]:
        """A stream whose headers came with 200; whoever gets it ends the attempt."""
        return self._through_models(call, self._open)

    def _through_models(
        self, call: Call, once: Callable[[Attempt, Call], Awaitable[Answer]]
    ) -> Awaitable[Answer]:
        self._budget.deposit()
        options = self._desk.options
        chain = options.fallback_chain if call.request.endpoint in _CHAT_ENDPOINTS else ()
        if not chain:
            return self._until_answered(call, once, max_retries=options.retry.max_retries)
        return self._through_chain(call, once, candidates(call.model, chain))

    async def _through_chain(
        self, call: Call, once: Callable[[Attempt, Call], Awaitable[Answer]], models: Sequence[str]
    ) -> Answer:
        options = self._desk.options
        for index, model in enumerate(models[:-1]):
            call.model = model
            try:
                few = min(RETRIES_BEFORE_FALLBACK, options.retry.max_retries)
                return await self._until_answered(call, once, max_retries=few)
            except AIClientError as error:
                if not may_fall_back(error, is_asked_model=index == 0) or not self._may_send_more(
                    call, error
                ):
                    raise
                self._desk.statistics.fallbacks += 1
                if self._desk.reporter.events.active:
                    self._desk.reporter.fell_back(call, error, to_model=models[index + 1])
        call.model = models[-1]
        return await self._until_answered(call, once, max_retries=options.retry.max_retries)

    async def _until_answered(
        self, call: Call, once: Callable[[Attempt, Call], Awaitable[Answer]], *, max_retries: int
    ) -> Answer:
        retry = 0
        key = self._keys.current
        while True:
            try:
                attempt = await begin(self._desk, call, key)
                return await once(attempt, call)
            except AuthenticationError as error:
                key = self._other_key(call, error, refused=key)
            except AIClientError as error:
                again = self._again(call, error, retry=retry, max_retries=max_retries)
                await self._wait(call, error, again)
                retry += 1
                key = self._keys.current

    def _other_key(self, call: Call, error: AuthenticationError, *, refused: ApiKey) -> ApiKey:
        """The key that replaces `refused`, for one more try. Raises `error` where there is none."""
        other = None if call.resent_for_key else self._keys.after_refusal(refused)
        if other is None:
            raise error
        call.resent_for_key = True
        if self._desk.reporter.events.active:
            self._desk.reporter.key_rotated(refused.fingerprint, other.fingerprint)
        return other

    def _again(self, call: Call, error: AIClientError, *, retry: int, max_retries: int) -> Again:
        """How the call goes on after `error`; raises what it ends with otherwise."""
        verdict = decide(
            error,
            retry=retry,
            max_retries=max_retries,
            resend_safe=is_resend_safe(call.request, self._desk.options.retry),
            options=self._desk.options.retry,
            budget=self._budget,
            random_source=self._random,
            remaining_s=call.remaining_s(self._desk.clock.monotonic()),
        )
        if isinstance(verdict, Again):
            return verdict
        if verdict is GiveUp.FAILED:
            raise error
        raise MaxRetriesExceeded(
            f"request {call.request_id}",
            attempts=call.attempts,
            last=error,
            budget_spent=verdict is GiveUp.BUDGET_SPENT,
            request_id=call.request_id,
        ) from error

    async def _wait(self, call: Call, error: AIClientError, again: Again) -> None:
        desk = self._desk
        desk.statistics.retries += 1
        if desk.reporter.events.active:
            desk.reporter.retried(call, error, wait_s=again.wait_s)
        call.waited_s += again.wait_s
        await desk.clock.sleep_until(desk.clock.monotonic() + again.wait_s)

    def _may_send_more(self, call: Call, error: AIClientError) -> bool:
        """Another model's attempt is extra load as a retry is, unless nothing was sent so far."""
        return call.attempts == 0 or isinstance(error, RateLimitError) or self._budget.withdraw()

    async def _fetch(self, attempt: Attempt, call: Call) -> Response:
        try:
            fetched = self._transport.fetch(attempt.wire_request())
            answer = await (fetched if call.deadline_at_s is None else self._within_deadline(call, fetched))
            if answer.status >= 300:
                raise self._error(call, answer, attempt.key)  # noqa: TRY301 - it ends the attempt as others do
            value, usage = _read(answer.body)
        except BaseException as error:
            attempt.failed(error)
            raise
        cost_usd = attempt.answered(usage, headers=answer.headers)
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
        response.parsed = value
        return response

    async def _open(self, attempt: Attempt, call: Call) -> tuple[Attempt, WireStream]:
        try:
            stream = await self._begin_stream(attempt, call)
        except BaseException as error:
            attempt.failed(error)
            raise
        return attempt, stream

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
        remaining_s = call.remaining_s(self._desk.clock.monotonic())
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
            wall_s=self._desk.clock.wall(),
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


def _read(body: bytes) -> tuple[Any, Usage | None]:
    """The parsed body (None where it is large) and its usage. Raises MalformedResponseError."""
    if len(body) > _LARGE_ANSWER_BYTES:
        if body.lstrip()[:1] != b"{" or body.rstrip()[-1:] != b"}":
            raise MalformedResponseError("upstream", "answered with something that is not a JSON object")
        return None, usage_at_end(body)
    try:
        value = read_json(body)
    except ValueError as error:
        raise MalformedResponseError("upstream", "answered with something that is not JSON") from error
    if not isinstance(value, dict):
        raise MalformedResponseError("upstream", "answered with something that is not a JSON object")
    if value.get("error"):
        said = parse_error_body(body).message
        raise MalformedResponseError("upstream", f"answered 200 with an error: {said}")
    return value, usage_from_json(value.get("usage"))

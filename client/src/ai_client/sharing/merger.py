"""Merging: small requests that come within a few milliseconds go out as one call and come back to their callers.

What may be merged, and how answers are taken apart, is a `Merging` (pure functions: `merged_embeddings.py`,
`merged_chat.py`). This module does the rest: the window, callers who leave, failures.
"""

import asyncio
import copy
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from msgspec import structs

from ai_client.contract.request import Request, Response, Usage
from ai_client.errors import AIClientError, BadRequestError
from ai_client.platform.clock import Clock, SystemClock, Timer

DEFAULT_WINDOW_S: Final = 0.003
MAX_PARTS: Final = 32

Send = Callable[[Request], Awaitable[Response]]


class Merging(Protocol):
    """A kind of request that can be merged. Pure."""

    def group(self, request: Request) -> Hashable | None:
        """Requests with equal groups may be one call; None for one that must go alone."""
        ...

    def parts(self, request: Request) -> int:
        """How many of a call's parts (inputs, conversations) the request takes."""
        ...

    def join(self, requests: Sequence[Request]) -> Request:
        """One request that asks for all."""
        ...

    def split(self, response: Response, requests: Sequence[Request]) -> list[Response] | None:
        """An answer for each request, in order; None where the answer can't be taken apart."""
        ...


@dataclass(slots=True, eq=False)
class _Caller:
    request: Request
    answer: asyncio.Future[Response]


@dataclass(slots=True, eq=False)
class _Batch:
    callers: list[_Caller]
    parts: int
    timer: Timer | None = None
    task: asyncio.Task[None] | None = None


class Merger:
    """Sends requests together where their `merging` allows. One per kind of request and client."""

    def __init__(
        self,
        merging: Merging,
        send: Send,
        *,
        window_s: float = DEFAULT_WINDOW_S,
        max_parts: int = MAX_PARTS,
        clock: Clock | None = None,
    ) -> None:
        self._merging = merging
        self._send = send
        self._window_s = window_s
        self._max_parts = max_parts
        self._clock = clock or SystemClock()
        self._gathering: dict[Hashable, _Batch] = {}
        self._under_way: set[_Batch] = set()

    async def send(self, request: Request) -> Response:
        """The answer to `request` alone, however it was sent. Raises what sending it raises."""
        group = self._merging.group(request)
        parts = self._merging.parts(request) if group is not None else 0
        if group is None or not 0 < parts < self._max_parts:
            return await self._send(request)
        caller = _Caller(request, asyncio.get_running_loop().create_future())
        batch = self._join_batch(group, caller, parts)
        try:
            return await caller.answer
        except asyncio.CancelledError:
            await self._leave(group, batch, caller)
            raise
        finally:
            # They hold the error, which holds this frame: see `Dispatcher._until_answered`.
            del caller, batch

    async def aclose(self) -> None:
        """Cancels what is gathered and under way, and everybody who waits for it."""
        for batch in self._gathering.values():
            _cancel(batch)
        self._gathering.clear()
        tasks = [batch.task for batch in self._under_way if batch.task is not None]
        for batch in list(self._under_way):
            _cancel(batch)
        if tasks:
            await asyncio.wait(tasks)

    def _join_batch(self, group: Hashable, caller: _Caller, parts: int) -> _Batch:
        batch = self._gathering.get(group)
        if batch is not None and batch.parts + parts > self._max_parts:
            self._depart(group, batch)
            batch = None
        if batch is None:
            batch = self._gathering[group] = _Batch([], 0)
            due_s = self._clock.monotonic() + self._window_s
            gathered = batch
            batch.timer = self._clock.call_at(due_s, lambda: self._depart(group, gathered))
        batch.callers.append(caller)
        batch.parts += parts
        if batch.parts == self._max_parts:
            self._depart(group, batch)
        return batch

    def _depart(self, group: Hashable, batch: _Batch) -> None:
        if batch.timer is not None:
            batch.timer.cancel()
        del self._gathering[group]
        self._under_way.add(batch)
        batch.task = asyncio.ensure_future(self._carry(batch))
        batch.task.add_done_callback(lambda task: _hand_on_defect(task, batch.callers))

    async def _leave(self, group: Hashable, batch: _Batch, caller: _Caller) -> None:
        """A caller was cancelled: it goes before departure, and the last one takes the call with it."""
        batch.callers.remove(caller)
        if batch.task is None:
            batch.parts -= self._merging.parts(caller.request)
            if not batch.callers and self._gathering.get(group) is batch:
                _cancel(batch)
                del self._gathering[group]
        elif not batch.callers and not batch.task.done():
            batch.task.cancel()
            await asyncio.wait([batch.task])

    async def _carry(self, batch: _Batch) -> None:
        aboard = list(batch.callers)
        try:
            if len(aboard) == 1:
                await self._alone(aboard[0])
                return
            requests = [caller.request for caller in aboard]
            try:
                response = await self._send(self._merging.join(requests))
            except BadRequestError:
                # One of them is at fault; sent alone, each gets what it deserves.
                answers = None
            except AIClientError as error:
                for caller in aboard:
                    _fail(caller, error)
                return
            else:
                answers = self._merging.split(response, requests)
            if answers is None:
                await asyncio.gather(*(self._alone(caller) for caller in batch.callers))
                return
            for caller, answer in zip(aboard, answers, strict=True):
                if not caller.answer.done():
                    caller.answer.set_result(answer)
        finally:
            self._under_way.discard(batch)
            del batch  # its task keeps a cancellation, which holds this frame

    async def _alone(self, caller: _Caller) -> None:
        try:
            response = await self._send(caller.request)
        except AIClientError as error:
            _fail(caller, error)
        else:
            if not caller.answer.done():
                caller.answer.set_result(response)


def _fail(caller: _Caller, error: AIClientError) -> None:
    if not caller.answer.done():
        # One exception raised in several tasks would collect the tracebacks of all of them.
        own = copy.copy(error)
        own.__cause__ = error.__cause__
        caller.answer.set_exception(own)


def _hand_on_defect(task: asyncio.Task[None], callers: Sequence[_Caller]) -> None:
    """What no `Merging` should raise reaches the callers, who would wait for ever otherwise."""
    if not task.cancelled() and (error := task.exception()) is not None:
        for caller in callers:
            if not caller.answer.done():
                caller.answer.set_exception(error)


def _cancel(batch: _Batch) -> None:
    if batch.timer is not None:
        batch.timer.cancel()
    if batch.task is not None:
        batch.task.cancel()
    for caller in batch.callers:
        caller.answer.cancel()


def common_terms(requests: Sequence[Request]) -> Request:
    """A request with the most urgent priority and the longest deadline of all; the rest is the first one's.

    Each caller keeps its own deadline beside it: the client ends its waiting, not the call of the others.
    """
    deadlines = [request.deadline_s for request in requests if request.deadline_s is not None]
    return structs.replace(
        requests[0],
        priority=min(request.priority for request in requests),
        deadline_s=max(deadlines) if len(deadlines) == len(requests) else None,
        resend_unsafe=all(request.resend_unsafe for request in requests),
        idempotency_key=None,
        on_admitted=_all_of([request.on_admitted for request in requests]),
    )


def _all_of(listeners: Sequence[Callable[[], None] | None]) -> Callable[[], None] | None:
    """One that calls each of those that there are."""
    given = [listener for listener in listeners if listener is not None]

    def tell_all() -> None:
        for listener in given:
            listener()

    return tell_all if given else None


def split_evenly(total: int, weights: Sequence[int]) -> list[int]:
    """`total` in whole parts by weight, that add up to it exactly (largest remainder)."""
    if not any(weights):
        weights = [1] * len(weights)
    whole = sum(weights)
    parts = [total * weight // whole for weight in weights]
    remainders = sorted(range(len(weights)), key=lambda n: (-(total * weights[n] % whole), n))
    for n in remainders[: total - sum(parts)]:
        parts[n] += 1
    return parts


def split_usage(usage: Usage, *, inputs: Sequence[int], outputs: Sequence[int]) -> list[Usage]:
    """A call's tokens by what each request put in and got out; they add up to the call's exactly."""
    return [
        Usage(read, written, min(cached, read))
        for read, written, cached in zip(
            split_evenly(usage.input_tokens, inputs),
            split_evenly(usage.output_tokens, outputs),
            split_evenly(usage.cached_input_tokens, inputs),
            strict=True,
        )
    ]


def split_cost(cost_usd: float | None, usages: Sequence[Usage]) -> list[float | None]:
    """A call's cost by tokens, for reports; the ledger has the exact cost of the call as one entry."""
    if cost_usd is None:
        return [None] * len(usages)
    total = sum(usage.total_tokens for usage in usages)
    return [cost_usd * usage.total_tokens / total if total else cost_usd / len(usages) for usage in usages]

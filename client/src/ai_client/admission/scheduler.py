"""Admission: one queue for everything that is sent.

An admission needs a place under `max_concurrent`, a place in its lane (one model and one key: its throttle and
its adaptive concurrency limit), and room in the sliding window. Who is next is decided by `queue.Backlog`:
fair between tenants, by priority within a tenant, in order within a priority, with a bound on waiting.
The one chosen waits for its room and nobody overtakes it, so that large requests are not starved by small ones.

One timer serves all waiters. A waiter that is cancelled, times out or is shed leaves nothing behind.
Not thread-safe: one event loop owns it.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import random

from ai_client.admission.lane import Lane, Permit
from ai_client.admission.queue import Backlog, Tenant, Waiter
from ai_client.admission.window import SlidingWindow
from ai_client.contract.options import QueueOptions
from ai_client.errors import (
    AIClientError,
    ClientClosedError,
    DeadlineExceeded,
    LeaseEndedError,
    OverloadError,
    RateLimitError,
    RequestTooLargeError,
)
from ai_client.platform.clock import Clock, Timer


class Scheduler:
    """See the module. Times are monotonic seconds.

    Invariants: in_flight = permits not released; a waiter is in the backlog or answered, never both;
    while anybody waits for time to pass, one timer is set no later than the next thing to happen.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        window: SlidingWindow,
        max_concurrent: int,
        options: QueueOptions | None = None,
        random_source: random.Random | None = None,
    ) -> None:
        self.window = window
        self.max_concurrent = max_concurrent
        self.in_flight = 0
        self._clock = clock
        self._now = clock.monotonic
        self._random = random_source or random.Random()  # noqa: S311 - jitter, not a secret
        self._options = options or QueueOptions()
        self._backlog = Backlog(self._options)
        self._deadlines: list[tuple[float, int, Waiter]] = []
        self._timer: Timer | None = None
        self._timer_at_s = math.inf
        #: Whether the one who is next waits for an entry to leave the window.
        self._awaits_expiry = False
        self._closed = self._is_handed_over = False

    @property
    def queued(self) -> int:
        return self._backlog.queued

    def try_admit(self, lane: Lane, *, tenant: str, tokens: int) -> Permit | None:
        """A permit, if nobody waits and there is room right now."""
        now_s = self._now()
        if (
            self._backlog.queued
            or self.in_flight >= self.max_concurrent
            or lane.in_flight >= lane.concurrency.limit
            or lane.throttle.not_before_s > now_s
            or not self.window.fits(tokens, now_s)
            or self._closed
            or self._is_handed_over
        ):
            return None
        return self._admit(lane, self._backlog.tenant(tenant), tokens, now_s)

    async def acquire(
        self,
        lane: Lane,
        *,
        tenant: str,
        priority: int,
        tokens: int,
        deadline_at_s: float | None = None,
        patience_s: float = math.inf,
    ) -> Permit:
        """Waits for a permit to send a request that reserves `tokens`; not longer than `patience_s` for an upstream
        that asks to be left alone.

        Raises RateLimitError where that takes longer, DeadlineExceeded at once where it can't be admitted in time,
        OverloadError where the queue is full, RequestTooLargeError where `tokens` are more than a minute has,
        ClientClosedError.
        """
        if deadline_at_s is None or self._now() < deadline_at_s:
            permit = self.try_admit(lane, tenant=tenant, tokens=tokens)
            if permit is not None:
                return permit
        waiter = self._enqueue(lane, tenant, priority, tokens, deadline_at_s)
        waiter.patience_s = patience_s
        self._dispatch()
        try:
            answer = await waiter.answer
        except asyncio.CancelledError:
            self._abandon(waiter)
            raise
        if isinstance(answer, AIClientError):
            raise answer
        assert isinstance(answer, Permit)  # noqa: S101 - tells the type checker what _dispatch puts in
        return answer

    def sent(self, permit: Permit) -> None:
        """The request is being written to a connection: its minute in the window begins. Raises LeaseEndedError."""
        if not permit.was_sent and (self._is_handed_over or not self.window.may_write()):
            # The process that admits now counts from the hand-over on: what is written later would be one too many.
            raise LeaseEndedError
        self.window.sent(permit, self._now())
        if self._awaits_expiry:
            # The one who is next may have waited for an entry that had no end yet.
            expiry_s = self.window.next_expiry_s()
            if expiry_s is not None and expiry_s < self._timer_at_s:
                self._arm(expiry_s)

    def settle(self, permit: Permit, tokens: int) -> None:
        """What it really used."""
        freed = tokens < permit.tokens
        self.window.settle(permit, tokens)
        if freed and self._backlog.queued:
            self._dispatch()

    def release(self, permit: Permit) -> None:
        """Gives the permit back; one that was never sent costs no quota. Twice is once."""
        if permit.released:
            return
        permit.released = True
        self.window.forget(permit)
        self.in_flight -= 1
        permit.lane.in_flight -= 1
        if self._backlog.queued:
            self._dispatch()

    def reconfigure(
        self,
        *,
        max_concurrent: int,
        limit_requests: int | None,
        limit_tokens: int | None,
        options: QueueOptions,
    ) -> None:
        """New limits, from now on. Those in flight keep their permits."""
        self.max_concurrent = max_concurrent
        self.window.set_limits(requests=limit_requests, tokens=limit_tokens)
        self._options = options
        self._backlog.reconfigure(options)
        most_tokens = self.window.largest_tokens
        for waiter in self._backlog.all():
            if most_tokens is not None and waiter.tokens > most_tokens:
                self._refuse(waiter, _too_large(waiter.tokens, most_tokens))
        self._dispatch()

    def window_changed(self) -> None:
        """The window's limits moved: more may go now."""
        if self._backlog.queued:
            self._dispatch()

    def lane_changed(self, lane: Lane) -> None:
        """The lane's throttle or concurrency limit moved: some may go, some can't make their deadline."""
        if not self._backlog.queued:
            return
        opens_at_s = lane.throttle.not_before_s
        now_s = self._now()
        for deadline_at_s, _, waiter in list(self._deadlines):
            if waiter.lane is lane and waiter.waiting and deadline_at_s <= opens_at_s:
                self._refuse(waiter, _too_late(waiter, now_s, opens_at_s))
        if lane.throttle.paused_until_s > now_s:
            self._refuse_impatient(lane, now_s)
        self._dispatch()

    def _refuse_impatient(self, lane: Lane, now_s: float) -> None:
        for waiter in self._backlog.all():
            if waiter.lane is lane:
                parked_s = lane.throttle.parks(now_s, waiter.patience_s)
                if parked_s is not None:
                    self._refuse(waiter, parked_error(lane.model, parked_s))

    def close(self) -> None:
        """Refuses those who wait and those who come."""
        self._closed = True
        for waiter in self._backlog.all():
            self._refuse(waiter, ClientClosedError("client", "was closed while the request waited"))
        self._disarm()

    def hand_over(self) -> None:
        """Another process admits from now on, until `resume`.

        Refuses those who wait, those who come, and those who were admitted and are not written yet.
        """
        self._is_handed_over = True
        for waiter in self._backlog.all():
            self._refuse(waiter, ClientClosedError.handed_over())
        self._disarm()

    def resume(self) -> None:
        """It does not, after all."""
        self._is_handed_over = False

    def _enqueue(
        self, lane: Lane, tenant_name: str, priority: int, tokens: int, deadline_at_s: float | None
    ) -> Waiter:
        """A waiter in the backlog. Raises where it would wait for nothing."""
        now_s = self._now()
        if self._closed:
            raise ClientClosedError("client", "is closed")
        if self._is_handed_over:
            raise ClientClosedError.handed_over()
        most_tokens = self.window.largest_tokens
        if most_tokens is not None and tokens > most_tokens:
            raise _too_large(tokens, most_tokens)
        waiter = Waiter(lane, self._backlog.tenant(tenant_name), min(9, max(0, priority)), tokens)
        waiter.enqueued_at_s = now_s
        waiter.deadline_at_s = deadline_at_s
        if deadline_at_s is not None:
            self._check_deadline(waiter, now_s)
        if self._backlog.queued >= self._options.max_queued:
            self._shed(waiter, now_s)
        waiter.answer = asyncio.get_running_loop().create_future()
        self._backlog.add(waiter)
        if deadline_at_s is not None:
            self._note_deadline(waiter, deadline_at_s)
        return waiter

    def _note_deadline(self, waiter: Waiter, deadline_at_s: float) -> None:
        if len(self._deadlines) > 64 + 2 * self._backlog.queued:
            self._deadlines = [entry for entry in self._deadlines if entry[2].waiting]
            heapq.heapify(self._deadlines)
        heapq.heappush(self._deadlines, (deadline_at_s, waiter.number, waiter))

    def _check_deadline(self, waiter: Waiter, now_s: float) -> None:
        assert waiter.deadline_at_s is not None  # noqa: S101 - for the type checker; the caller asked
        lane = waiter.lane
        earliest_s = max(now_s, lane.throttle.not_before_s)
        if waiter.deadline_at_s > now_s:
            self.window.fits(waiter.tokens, now_s)  # drops what is over, so that the estimate is true
            ahead = self._backlog.surely_ahead(waiter)
            by_window_s = self.window.earliest_s(ahead=ahead, tokens=waiter.tokens, now_s=now_s)
            earliest_s = max(earliest_s, by_window_s)
        if earliest_s >= waiter.deadline_at_s:
            raise _too_late(waiter, now_s, earliest_s)

    def _shed(self, newcomer: Waiter, now_s: float) -> None:
        """Makes room in a full queue, at the cost of whom it is fairest; raises where that is the newcomer."""
        victim = self._backlog.least_deserving(newcomer)
        earliest_s = self.window.earliest_s(ahead=self._backlog.queued, tokens=0, now_s=now_s)
        error = OverloadError(
            f"tenant {(victim or newcomer).tenant.name}",
            queued=self._backlog.queued,
            limit=self._options.max_queued,
            retry_after_s=max(1.0, earliest_s - now_s),
        )
        if victim is None:
            raise error
        self._refuse(victim, error)

    def _admit(self, lane: Lane, tenant: Tenant, tokens: int, now_s: float) -> Permit:
        permit = Permit(lane, tokens, now_s)
        self.window.reserve(permit)
        self.in_flight += 1
        lane.in_flight += 1
        lane.throttle.admitted(now_s)
        self._backlog.charge(tenant, self._cost(tokens))
        return permit

    def _cost(self, tokens: int) -> float:
        """In requests: the larger of its shares of the two limits (dominant resource, Ghodsi et al. 2011)."""
        limit_tokens = self.window.limit_tokens
        if not limit_tokens:
            return 1.0
        return max(1.0, tokens * (self.window.limit_requests or 1000) / limit_tokens)

    def _dispatch(self) -> None:
        """Admits as many as there is room for, then sets the timer for what comes next."""
        now_s = self._now()
        wake_at_s = math.inf
        self._awaits_expiry = False
        while self._backlog.queued and self.in_flight < self.max_concurrent:
            waiter = self._backlog.choose(now_s)
            if waiter is None:
                wake_at_s = self._backlog.next_opening_s(now_s)
                break
            if not self.window.fits(waiter.tokens, now_s):
                self._awaits_expiry = True
                expiry_s = self.window.next_expiry_s()
                wake_at_s = math.inf if expiry_s is None else expiry_s
                break
            if waiter.answer.done():  # cancelled, and its task has not run since
                self._backlog.take(waiter)
                continue
            self._backlog.admitted(waiter)
            waiter.answer.set_result(self._admit(waiter.lane, waiter.tenant, waiter.tokens, now_s))
        self._arm(min(wake_at_s, self._next_deadline_s()))

    def _next_deadline_s(self) -> float:
        while self._deadlines and not self._deadlines[0][2].waiting:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else math.inf

    def _arm(self, when_s: float) -> None:
        if when_s == self._timer_at_s:
            return
        self._disarm()
        if when_s != math.inf:
            self._timer_at_s = when_s
            self._timer = self._clock.call_at(when_s, self._fire)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at_s = math.inf

    def _fire(self) -> None:
        self._timer = None
        self._timer_at_s = math.inf
        now_s = self._now()
        while self._next_deadline_s() <= now_s:
            waiter = self._deadlines[0][2]
            self._refuse(waiter, _too_late(waiter, now_s, None))
        self._dispatch()

    def _refuse(self, waiter: Waiter, error: AIClientError) -> None:
        self._backlog.take(waiter)
        if not waiter.answer.done():
            waiter.answer.set_result(error)

    def _abandon(self, waiter: Waiter) -> None:
        """The caller left. A permit that was granted in the same moment goes back."""
        if waiter.waiting:
            self._backlog.take(waiter)
            if not self._backlog.queued:
                self._deadlines.clear()
                self._disarm()
            else:
                self._dispatch()
        elif not waiter.answer.cancelled() and isinstance(permit := waiter.answer.result(), Permit):
            self.release(permit)


def parked_error(model: str, parked_s: float) -> RateLimitError:
    """What callers get while an upstream wants to be left alone for long."""
    return RateLimitError(
        f"model {model}",
        f"its upstream asked not to be sent anything for another {parked_s:.0f} s (a quota is spent)",
        retry_after_s=parked_s,
        remedy="Wait for that time, or name a fallback model.",
    )


def _too_large(tokens: int, limit_tokens: int) -> RequestTooLargeError:
    return RequestTooLargeError("request", tokens=tokens, limit_tokens=limit_tokens)


def _too_late(waiter: Waiter, now_s: float, earliest_s: float | None) -> DeadlineExceeded:
    deadline_at_s = waiter.deadline_at_s or now_s
    return DeadlineExceeded(
        f"request of tenant {waiter.tenant.name}",
        deadline_s=max(0.0, deadline_at_s - waiter.enqueued_at_s),
        phase="queue",
        earliest_s=None if earliest_s is None else max(0.0, earliest_s - now_s),
    )

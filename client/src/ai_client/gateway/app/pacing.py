"""Keeps batch work from taking a minute's quota in a second, so that interactive requests find room at any moment.

The rate window slides: whatever is sent in a burst now is missing for the next 60 seconds, however urgent what comes
then. So requests of the lowest priority go out evenly, at the rate that the window is likely to have left beside the
interactive traffic: that of the last minute, or where it began since, a minute's worth of what came so far. Where the
window turns out fuller or emptier than that, the rate is corrected. A few hundredths stay free for what comes
unforeseen; where interactive traffic grows, it takes the slots that become free first, as it is more urgent, and the
batch follows down.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from ai_client.contract.events import Admitted, Event
from ai_client.contract.options import Limits

LEAST_URGENT = 9
# Of the window, what both kinds together may use before a batch request is held back.
TARGET_SHARE = 0.972
# Batch work goes on at this rate even where interactive traffic takes all: nobody starves.
LEAST_SHARE = 0.01
WINDOW_S = 60
# Traffic of fewer seconds says little yet about a minute.
LEARNING_S = 10.0
# In how many seconds a window that is fuller or emptier than it should be is brought back, and by how much of its rate
# batch work may be hastened for that: what goes out in a heap leaves the window in a heap.
CORRECTION_S = 6.0
MOST_HASTE = 1.15
# What may go out at once after a pause, in seconds of the rate.
BURST_S = 1.0
_LEARNING = 0.1


class Minute:
    """What went out in the last 60 seconds, in shares of the window."""

    def __init__(self) -> None:
        self.share = 0.0
        #: What went out within a second of a first time, as [that time, share].
        self._seconds: deque[list[float]] = deque()

    def note(self, share: float, *, now_s: float) -> None:
        """So much went out."""
        newest = self._seconds[-1] if self._seconds else None
        if newest is not None and now_s < newest[0] + 1:
            newest[1] += share
        else:
            # Here too, as a host without batch work never asks for its rate.
            self.forget_until(now_s)
            self._seconds.append([now_s, share])
        self.share += share

    def forget_until(self, now_s: float) -> None:
        """What is older than a minute does not count."""
        while self._seconds and self._seconds[0][0] <= now_s - WINDOW_S - 1:
            self.share -= self._seconds.popleft()[1]
        self.share = max(0.0, self.share) if self._seconds else 0.0

    def age_s(self, now_s: float) -> float:
        """How long ago the first of it went out."""
        return min(WINDOW_S, now_s - self._seconds[0][0]) if self._seconds else 0.0

    def __len__(self) -> int:
        """How many seconds are remembered."""
        return len(self._seconds)


class Pace:
    """How much of the window a batch request costs, and at what rate it is to be spent. Pure; times are seconds.

    Everything is counted in shares of the window: of its requests or of its tokens, whichever is scarcer.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._interactive = Minute()
        self._batch = Minute()
        self._batch_tokens = 0.0

    def note(self, *, priority: int, tokens: int, now_s: float) -> None:
        """A request was admitted."""
        share = self._share_of(tokens)
        if priority < LEAST_URGENT:
            self._interactive.note(share, now_s=now_s)
            return
        self._batch_tokens += (tokens - self._batch_tokens) * (_LEARNING if self._batch_tokens else 1.0)
        self._batch.note(share, now_s=now_s)

    def rate_per_s(self, now_s: float) -> float:
        """Shares of the window that batch work may spend in a second."""
        self._interactive.forget_until(now_s)
        self._batch.forget_until(now_s)
        likely = self._likely_interactive(now_s)
        even = max(LEAST_SHARE, TARGET_SHARE - likely) / WINDOW_S
        batch_s, interactive_s = self._batch.age_s(now_s), self._interactive.age_s(now_s)
        # What batch work should have spent since it began: what the interactive traffic of that time left.
        meanwhile = self._interactive.share * min(1.0, batch_s / interactive_s if interactive_s else 1.0)
        lag = TARGET_SHARE * batch_s / WINDOW_S - meanwhile - self._batch.share
        if lag < 0:
            # One request may always be ahead, however large it is.
            lag = min(0.0, lag + self.cost())
        return max(LEAST_SHARE / WINDOW_S, min(even + lag / CORRECTION_S, even * MOST_HASTE))

    def _likely_interactive(self, now_s: float) -> float:
        """The share that interactive traffic takes of a minute, if it goes on as it does."""
        minute = self._interactive
        growth = WINDOW_S / max(LEARNING_S, minute.age_s(now_s)) - 1
        return minute.share * (1 + growth * min(1.0, len(minute) / LEARNING_S))

    @property
    def remembered_s(self) -> int:
        """How many seconds of interactive traffic it remembers."""
        return len(self._interactive)

    def cost(self) -> float:
        """The share of the window that the next batch request is likely to take."""
        return self._share_of(self._batch_tokens)

    def _share_of(self, tokens: float) -> float:
        requests, per_minute = self.limits.requests_per_minute, self.limits.tokens_per_minute
        return max(1 / requests if requests else 0.0, tokens / per_minute if per_minute else 0.0)


class Pacer:
    """Lets batch requests go one after another, first come, first served. A listener of the client's events."""

    def __init__(self, limits: Limits, *, clock: Callable[[], float]) -> None:
        self.pace = Pace(limits)
        self._clock = clock
        self._level = 0.0
        self._filled_s = clock()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self, event: Event) -> None:
        """The listener."""
        if isinstance(event, Admitted):
            self.pace.note(priority=event.priority, tokens=event.reserved_tokens, now_s=self._clock())

    @property
    def waiting(self) -> int:
        """How many are held back."""
        return len(self._waiting)

    async def turn(self) -> None:
        """Wait for the turn of one batch request."""
        self._fill()
        cost = self.pace.cost()
        if not self._waiting and self._level >= cost:
            self._level -= cost
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._arm()
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._level += cost  # its turn had come in the same moment
            else:
                self._waiting.remove(waiter)
            raise

    def _fill(self) -> None:
        now_s = self._clock()
        rate = self.pace.rate_per_s(now_s)
        most = max(self.pace.cost(), rate * BURST_S)
        self._level = min(most, self._level + rate * (now_s - self._filled_s))
        self._filled_s = now_s

    def _arm(self) -> None:
        if self._timer is not None or not self._waiting:
            return
        missing = self.pace.cost() - self._level
        wait_s = max(0.001, missing / self.pace.rate_per_s(self._clock()))
        # Not longer than a second: the rate changes meanwhile.
        self._timer = asyncio.get_running_loop().call_later(min(wait_s, 1.0), self._serve)

    def _serve(self) -> None:
        self._timer = None
        self._fill()
        cost = self.pace.cost()
        # A billionth is lost to floating point where time and rate don't divide evenly.
        while self._waiting and self._level + 1e-9 >= cost:
            waiter = self._waiting.popleft()
            if not waiter.done():
                self._level -= cost
                waiter.set_result(None)
        self._arm()

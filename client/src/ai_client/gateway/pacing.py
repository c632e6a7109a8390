"""Keeps batch work from taking a minute's quota in a second, so that interactive requests find room at any moment.

The rate window slides: whatever is sent in a burst now is missing for the next 60 seconds, however urgent what comes
then. So requests of the lowest priority go out evenly, at the rate that the window has left after the interactive
traffic of the last minute. A few hundredths stay free for what comes unforeseen; where interactive traffic grows, it
takes the slots that become free first, as it is more urgent, and the batch follows down.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from ai_client.events import Admitted, Event
from ai_client.options import Limits

LEAST_URGENT = 9
# Of the window, what both kinds together may use before a batch request is held back.
TARGET_SHARE = 0.97
# Batch work goes on at this rate even where interactive traffic takes all: nobody starves.
LEAST_SHARE = 0.01
WINDOW_S = 60
# What may go out at once after a pause, in seconds of the rate.
BURST_S = 1.0
_LEARNING = 0.1


class Pace:
    """How much of the window a batch request costs, and at what rate it is to be spent. Pure; times are seconds.

    Everything is counted in shares of the window: of its requests or of its tokens, whichever is scarcer.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        #: The share that went out in each second, as [second, share].
        self._interactive: deque[list[float]] = deque()
        self._interactive_share = 0.0
        self._batch_tokens = 0.0

    def note(self, *, priority: int, tokens: int, now_s: float) -> None:
        """A request was admitted."""
        if priority >= LEAST_URGENT:
            self._batch_tokens += (tokens - self._batch_tokens) * (_LEARNING if self._batch_tokens else 1.0)
            return
        share = self._share_of(tokens)
        self._interactive_share += share
        newest = self._interactive[-1] if self._interactive else None
        if newest is not None and now_s < newest[0] + 1:
            newest[1] += share
        else:
            # Here too, as a host without batch work never asks for its rate.
            self._forget_until(now_s)
            self._interactive.append([now_s // 1, share])

    def _forget_until(self, now_s: float) -> None:
        oldest = int(now_s) - WINDOW_S
        while self._interactive and self._interactive[0][0] < oldest:
            self._interactive_share -= self._interactive.popleft()[1]

    def rate_per_s(self, now_s: float) -> float:
        """Shares of the window that batch work may spend in a second."""
        self._forget_until(now_s)
        left = TARGET_SHARE - max(0.0, self._interactive_share)
        return max(LEAST_SHARE, left) / WINDOW_S

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

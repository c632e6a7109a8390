"""Time as an argument: the real clock, and one that tests drive by hand."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """What `Clock.call_at` returns."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """`monotonic` and `wall` in seconds; `call_at` takes monotonic time."""

    def monotonic(self) -> float: ...

    def wall(self) -> float: ...

    def call_at(self, when_s: float, callback: Callable[[], None]) -> Timer: ...

    async def sleep_until(self, when_s: float) -> None: ...


class SystemClock:
    """The machine's clock; timers run on the running event loop, which shares its monotonic clock."""

    __slots__ = ()

    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)

    def call_at(self, when_s: float, callback: Callable[[], None]) -> Timer:
        loop = asyncio.get_running_loop()
        # A loop may count from another zero, so only the distance counts. uvloop rounds to milliseconds:
        # half of one more keeps a timer from firing early, to find that it is not yet time.
        return loop.call_later(max(0.0, when_s - time.monotonic()) + 0.0005, callback)

    async def sleep_until(self, when_s: float) -> None:
        await asyncio.sleep(max(0.0, when_s - time.monotonic()))


class _ManualTimer:
    __slots__ = ("callback", "cancelled", "order", "when_s")

    def __init__(self, when_s: float, order: int, callback: Callable[[], None]) -> None:
        self.when_s = when_s
        self.order = order
        self.callback = callback
        self.cancelled = False

    def __lt__(self, other: _ManualTimer) -> bool:
        return (self.when_s, self.order) < (other.when_s, other.order)

    def cancel(self) -> None:
        self.cancelled = True


class ManualClock:
    """A clock that stands still until a test moves it. Timers fire in order while it is moved."""

    def __init__(self, *, monotonic_s: float = 1000.0, wall_s: float = 1_700_000_000.0) -> None:
        self._now_s = monotonic_s
        self._wall_offset_s = wall_s - monotonic_s
        self._timers: list[_ManualTimer] = []
        self._count = 0

    def monotonic(self) -> float:
        return self._now_s

    def wall(self) -> float:
        return self._now_s + self._wall_offset_s

    def call_at(self, when_s: float, callback: Callable[[], None]) -> Timer:
        self._count += 1
        timer = _ManualTimer(when_s, self._count, callback)
        heapq.heappush(self._timers, timer)
        return timer

    async def sleep_until(self, when_s: float) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.call_at(when_s, lambda: None if done.done() else done.set_result(None))
        try:
            await done
        finally:
            timer.cancel()

    @property
    def pending(self) -> int:
        """How many timers wait: what a test asserts to be 0, or 1, in the end."""
        return sum(not timer.cancelled for timer in self._timers)

    @property
    def next_at_s(self) -> float | None:
        """When the next timer fires, if there is one."""
        while self._timers and self._timers[0].cancelled:
            heapq.heappop(self._timers)
        return self._timers[0].when_s if self._timers else None

    def set_wall(self, *, by_s: float) -> None:
        """Sets the wall clock forward or back; no time passes."""
        self._wall_offset_s += by_s

    def advance(self, by_s: float) -> None:
        """Moves the clock, firing each timer that falls due at its own time."""
        end_s = self._now_s + by_s
        while (when_s := self.next_at_s) is not None and when_s <= end_s:
            timer = heapq.heappop(self._timers)
            self._now_s = max(self._now_s, timer.when_s)
            timer.callback()
        self._now_s = end_s

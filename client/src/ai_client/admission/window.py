"""Rate limits: an exact sliding window over requests and tokens, and the token bucket that scripts use.

The window holds as the *server* counts. A request counts from when it is written to its connection, for 60 s
plus the longest network delay plus a guard for our own lag between the stamp and the write. If every delay is
within [0, D], two requests stamped 60 + D apart arrive at least 60 s apart; so no 60 s of arrivals can hold
more than the limit, whatever the order they arrive in. Before it is written a request counts without end.
At D = 0.1 s the price is 0.25 % of the limit, and counting in bins costs 0.03 % more at most.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from ai_client.errors import RequestTooLargeError
from ai_client.platform.clock import Clock, SystemClock, Timer

WINDOW_S = 60.0
#: Between the stamp and the write the event loop may be busy with others for this long.
LAG_GUARD_S = 0.05
#: Requests written within this time of each other are counted together, and leave together with the last of them:
#: some thousand numbers stand for any number of requests, and none leaves early.
BIN_S = 0.02
# A snapshot's times are wall-clock, whose floating point is coarse: they are told up to this much later.
_SNAPSHOT_S = 0.001


class _Bin:
    """Requests written at nearly one time: the last of them at `sent_at_s`, none after `closes_at_s`."""

    __slots__ = ("closes_at_s", "count", "is_over", "sent_at_s", "tokens")

    def __init__(self, sent_at_s: float, *, count: int, tokens: int, is_over: bool = False) -> None:
        self.sent_at_s = sent_at_s
        self.closes_at_s = sent_at_s + BIN_S
        self.count = count
        self.tokens = tokens
        self.is_over = is_over


#: Where entries are that count no more: those never written, and all where there is nothing to hold.
_NOWHERE: Final = _Bin(0.0, count=0, tokens=0, is_over=True)


class WindowEntry:
    """One request in the window. `tokens` is the reserve until it is settled."""

    __slots__ = ("_bin", "sent_at_s", "tokens")

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.sent_at_s = 0.0
        self._bin: _Bin | None = None

    @property
    def was_sent(self) -> bool:
        return self._bin is not None


class SlidingWindow:
    """At most `limit_requests` and `limit_tokens` (None: unlimited) in any 60 s, as the server counts.

    Pure bookkeeping: it never waits, the scheduler does. Times are monotonic seconds.
    Invariants: used_requests = unsent + the bins' counts; the bins are ordered by `sent_at_s`; the window refers to
    no entry, so that an entry goes with its request.
    """

    __slots__ = (
        "_bin_s",
        "_bins",
        "_unsent",
        "_used_requests",
        "_used_tokens",
        "limit_requests",
        "limit_tokens",
        "span_s",
    )

    def __init__(
        self,
        *,
        limit_requests: int | None,
        limit_tokens: int | None = None,
        network_delay_s: float = 0.1,
        window_s: float = WINDOW_S,
    ) -> None:
        self.limit_requests = limit_requests
        self.limit_tokens = limit_tokens
        self.span_s = window_s + network_delay_s + LAG_GUARD_S
        # Of a long window in proportion, so that a day's requests are some thousand numbers, too.
        self._bin_s = BIN_S * max(1.0, window_s / WINDOW_S)
        self._bins: deque[_Bin] = deque()
        self._unsent = 0
        self._used_requests = 0
        self._used_tokens = 0

    @property
    def used_requests(self) -> int:
        return self._used_requests

    @property
    def used_tokens(self) -> int:
        return self._used_tokens

    @property
    def largest_tokens(self) -> int | None:
        """A request that needs more can never be admitted."""
        return self.limit_tokens

    def may_write(self) -> bool:
        """Whether what was admitted may still be written."""
        return True

    def set_limits(self, *, requests: int | None, tokens: int | None) -> None:
        """New limits, from now on."""
        self.limit_requests = requests
        self.limit_tokens = tokens

    def fits(self, tokens: int, now_s: float) -> bool:
        """Whether one more request that needs `tokens` may go now."""
        bins = self._bins
        span_s = self.span_s
        # The same sum as in `next_expiry_s`: a timer set for that moment must find the bin over.
        while bins and bins[0].sent_at_s + span_s <= now_s:
            oldest = bins.popleft()
            oldest.is_over = True
            self._used_requests -= oldest.count
            self._used_tokens -= oldest.tokens
        if self.limit_requests is not None and self._used_requests >= self.limit_requests:
            return False
        return self.limit_tokens is None or self._used_tokens + tokens <= self.limit_tokens

    def reserve(self, entry: WindowEntry) -> None:
        """Counts `entry` from now on. Ask `fits` first."""
        self._unsent += 1
        self._used_requests += 1
        self._used_tokens += entry.tokens

    def sent(self, entry: WindowEntry, now_s: float) -> None:
        """`entry` is being written: its 60 s begin."""
        if entry._bin is not None:
            return
        self._unsent -= 1
        entry.sent_at_s = now_s
        if self.limit_requests is None and self.limit_tokens is None:
            # Nothing to hold: what a minute's requests were would be memory for nothing.
            self._drop(entry)
            return
        bins = self._bins
        if bins and now_s < bins[-1].closes_at_s:
            newest = bins[-1]
            newest.sent_at_s = now_s
            newest.count += 1
            newest.tokens += entry.tokens
        else:
            newest = _Bin(now_s, count=1, tokens=entry.tokens)
            newest.closes_at_s = now_s + self._bin_s
            bins.append(newest)
        entry._bin = newest

    def settle(self, entry: WindowEntry, tokens: int) -> None:
        """What `entry` really used. The difference is free at once, or owed where it used more."""
        held = entry._bin
        if held is None or not held.is_over:
            self._used_tokens += tokens - entry.tokens
            if held is not None:
                held.tokens += tokens - entry.tokens
        entry.tokens = tokens

    def forget(self, entry: WindowEntry) -> None:
        """`entry` was never written: it counts no more. Does nothing for one that was."""
        if entry._bin is None:
            self._unsent -= 1
            self._drop(entry)

    def _drop(self, entry: WindowEntry) -> None:
        entry._bin = _NOWHERE
        self._used_requests -= 1
        self._used_tokens -= entry.tokens

    def forget_sent(self) -> None:
        """What was written counts no more: it is told anew by `restore`."""
        for each in self._bins:
            each.is_over = True
            self._used_requests -= each.count
            self._used_tokens -= each.tokens
        self._bins.clear()

    def next_expiry_s(self) -> float | None:
        """When the oldest that counts leaves; None where all that counts is unsent, or nothing does."""
        return self._bins[0].sent_at_s + self.span_s if self._bins else None

    def earliest_s(self, *, ahead: int, tokens: int, now_s: float) -> float:
        """No request that has `ahead` others before it and needs `tokens` can go sooner: a lower bound."""
        return max(self._earliest_by_requests(ahead + 1, now_s), self._earliest_by_tokens(tokens, now_s))

    def _earliest_by_requests(self, count: int, now_s: float) -> float:
        limit = self.limit_requests
        if limit is None:
            return now_s
        if limit == 0:
            return float("inf")
        missing = self.used_requests + count - limit
        if missing <= 0:
            return now_s
        # Places come free in the order they were taken, each a span later; those taken from now on follow.
        rounds, index = divmod(missing - 1, limit)
        taken_at_s = self._sent_at_s(index, now_s)
        return max(now_s, taken_at_s + self.span_s * (1 + rounds))

    def _sent_at_s(self, index: int, now_s: float) -> float:
        """When the request was written that is the `index`-th to leave; now, for one that is not written yet."""
        for each in self._bins:
            index -= each.count
            if index < 0:
                return each.sent_at_s
        return now_s

    def _earliest_by_tokens(self, tokens: int, now_s: float) -> float:
        if self.limit_tokens is None:
            return now_s
        missing = self._used_tokens + tokens - self.limit_tokens
        if missing <= 0:
            return now_s
        for each in self._bins:
            missing -= each.tokens
            if missing <= 0:
                return max(now_s, each.sent_at_s + self.span_s)
        # Unsent requests may yet settle to less, at any moment.
        return now_s

    def snapshot(self, *, clock: Clock) -> dict[str, Any]:
        """What counts now, in wall-clock time, for the next process: {"version", "entries": [[at, n, tokens]]}."""
        entries = self.sent_entries(clock=clock)
        if self._unsent:
            reserved = self._used_tokens - sum(each.tokens for each in self._bins)
            entries.append([_told_s(clock.wall()), self._unsent, reserved])
        return {"version": 1, "entries": entries}

    def sent_entries(self, *, clock: Clock) -> list[list[float | int]]:
        """Of what was sent: when, in wall-clock time, how many requests, and how many tokens."""
        offset_s = clock.wall() - clock.monotonic()
        return [[_told_s(each.sent_at_s + offset_s), each.count, each.tokens] for each in self._bins]

    def restore(self, state: Mapping[str, Any], *, clock: Clock) -> int:
        """Counts what a snapshot holds, so that a restart opens no second window. How many requests it was.

        Entries that are over are dropped; entries from the future (the clock was set back) begin now;
        what makes no sense is left out.
        """
        now_s = clock.monotonic()
        offset_s = clock.wall() - now_s
        restored: list[_Bin] = []
        for at, count, tokens in sorted(_valid_entries(state)):
            sent_at_s = min(at - offset_s, now_s)
            if not count or sent_at_s + self.span_s <= now_s:
                continue
            if restored and sent_at_s < restored[-1].closes_at_s:
                restored[-1].sent_at_s = sent_at_s
                restored[-1].count += count
                restored[-1].tokens += tokens
            else:
                restored.append(_Bin(sent_at_s, count=count, tokens=tokens))
        count = sum(each.count for each in restored)
        self._used_requests += count
        self._used_tokens += sum(each.tokens for each in restored)
        self._bins = deque(sorted((*restored, *self._bins), key=lambda each: each.sent_at_s))
        return count


def _told_s(at_s: float) -> float:
    return (math.floor(at_s / _SNAPSHOT_S) + 1) * _SNAPSHOT_S


def _valid_entries(state: Mapping[str, Any]) -> list[tuple[float, int, int]]:
    entries = state.get("entries") if state.get("version") == 1 else None
    if not isinstance(entries, list):
        return []
    return [
        (float(entry[0]), entry[1], entry[2])
        for entry in entries
        if isinstance(entry, list)
        and len(entry) == 3
        and isinstance(entry[0], int | float)
        and all(isinstance(number, int) and number >= 0 for number in entry[1:])
    ]


class TokenBucket:
    """`capacity` tokens that come back at `refill_rate` a second; waiters are served in their order.

    One timer for all waiters. Invariant: nobody overtakes, so a large request is never starved.
    """

    def __init__(self, capacity: float, refill_rate: float, *, clock: Clock | None = None) -> None:
        if capacity <= 0 or refill_rate <= 0:
            raise ValueError("capacity and refill_rate must be positive")
        self.capacity = capacity
        self.refill_rate = refill_rate
        self._clock = clock or SystemClock()
        self._level = float(capacity)
        self._filled_at_s = self._clock.monotonic()
        self._waiters: deque[tuple[float, asyncio.Future[None]]] = deque()
        self._timer: Timer | None = None

    @property
    def tokens(self) -> float:
        """How many there are now."""
        self._refill()
        return self._level

    async def acquire(self, tokens: float = 1) -> bool:
        """Waits for `tokens` and takes them. Always True; RequestTooLargeError above the capacity."""
        if tokens > self.capacity:
            raise RequestTooLargeError("token bucket", tokens=int(tokens), limit_tokens=int(self.capacity))
        self._refill()
        if not self._waiters and self._level >= tokens:
            self._level -= tokens
            return True
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((tokens, waiter))
        self._serve()
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._level = min(self.capacity, self._level + tokens)
            self._serve()
            raise
        return True

    def _refill(self) -> None:
        now_s = self._clock.monotonic()
        self._level = min(self.capacity, self._level + (now_s - self._filled_at_s) * self.refill_rate)
        self._filled_at_s = now_s

    def _serve(self) -> None:
        self._refill()
        while self._waiters:
            tokens, waiter = self._waiters[0]
            if not waiter.done():
                # A billionth is lost to floating point where time and rate don't divide evenly.
                if self._level + 1e-9 < tokens:
                    break
                self._level -= tokens
                waiter.set_result(None)
            self._waiters.popleft()
        self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiters:
            missing = self._waiters[0][0] - self._level
            when_s = self._clock.monotonic() + missing / self.refill_rate
            self._timer = self._clock.call_at(when_s, self._fire)

    def _fire(self) -> None:
        self._timer = None
        self._serve()

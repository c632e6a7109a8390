"""Rate limits: an exact sliding window over requests and tokens, and the token bucket that scripts use.

The window holds as the *server* counts. A request counts from when it is written to its connection, for 60 s
plus the longest network delay plus a guard for our own lag between the stamp and the write. If every delay is
within [0, D], two requests stamped 60 + D apart arrive at least 60 s apart; so no 60 s of arrivals can hold
more than the limit, whatever the order they arrive in. Before it is written a request counts without end.
At D = 0.1 s the price is 0.25 % of the limit.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any

from ai_client.clock import Clock, SystemClock, Timer
from ai_client.errors import RequestTooLargeError

WINDOW_S = 60.0
#: Between the stamp and the write the event loop may be busy with others for this long.
LAG_GUARD_S = 0.05
#: Width of the bins that a snapshot sums entries in; it rounds towards later, so that nothing ends early.
_BIN_S = 0.05

_UNSENT, _COUNTED, _OVER = 0, 1, 2


class WindowEntry:
    """One request in the window. `tokens` is the reserve until it is settled."""

    __slots__ = ("_state", "sent_at_s", "tokens")

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.sent_at_s = 0.0
        self._state = _UNSENT

    @property
    def was_sent(self) -> bool:
        return self._state != _UNSENT


class SlidingWindow:
    """At most `limit_requests` and `limit_tokens` (None: unlimited) in any 60 s, as the server counts.

    Pure bookkeeping: it never waits, the scheduler does. Times are monotonic seconds.
    Invariant: used_requests = unsent + entries in the log; the log is ordered by `sent_at_s`.
    """

    __slots__ = ("_log", "_unsent", "_used_tokens", "limit_requests", "limit_tokens", "span_s")

    def __init__(
        self,
        *,
        limit_requests: int | None,
        limit_tokens: int | None = None,
        network_delay_s: float = 0.1,
    ) -> None:
        self.limit_requests = limit_requests
        self.limit_tokens = limit_tokens
        self.span_s = WINDOW_S + network_delay_s + LAG_GUARD_S
        self._log: deque[WindowEntry] = deque()
        self._unsent = 0
        self._used_tokens = 0

    @property
    def used_requests(self) -> int:
        return self._unsent + len(self._log)

    @property
    def used_tokens(self) -> int:
        return self._used_tokens

    def fits(self, tokens: int, now_s: float) -> bool:
        """Whether one more request that needs `tokens` may go now."""
        log = self._log
        span_s = self.span_s
        # The same sum as in `next_expiry_s`: a timer set for that moment must find the entry over.
        while log and log[0].sent_at_s + span_s <= now_s:
            entry = log.popleft()
            entry._state = _OVER
            self._used_tokens -= entry.tokens
        if self.limit_requests is not None and self._unsent + len(log) >= self.limit_requests:
            return False
        return self.limit_tokens is None or self._used_tokens + tokens <= self.limit_tokens

    def reserve(self, entry: WindowEntry) -> None:
        """Counts `entry` from now on. Ask `fits` first."""
        self._unsent += 1
        self._used_tokens += entry.tokens

    def sent(self, entry: WindowEntry, now_s: float) -> None:
        """`entry` is being written: its 60 s begin."""
        if entry._state != _UNSENT:
            return
        self._unsent -= 1
        entry.sent_at_s = now_s
        if self.limit_requests is None and self.limit_tokens is None:
            # Nothing to hold: a log of a minute's requests would be memory for nothing.
            entry._state = _OVER
            self._used_tokens -= entry.tokens
            return
        entry._state = _COUNTED
        self._log.append(entry)

    def settle(self, entry: WindowEntry, tokens: int) -> None:
        """What `entry` really used. The difference is free at once, or owed where it used more."""
        if entry._state != _OVER:
            self._used_tokens += tokens - entry.tokens
        entry.tokens = tokens

    def forget(self, entry: WindowEntry) -> None:
        """`entry` was never written: it counts no more. Does nothing for one that was."""
        if entry._state == _UNSENT:
            entry._state = _OVER
            self._unsent -= 1
            self._used_tokens -= entry.tokens

    def next_expiry_s(self) -> float | None:
        """When the oldest counted entry leaves; None where all that counts is unsent, or nothing does."""
        return self._log[0].sent_at_s + self.span_s if self._log else None

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
        taken_at_s = self._log[index].sent_at_s if index < len(self._log) else now_s
        return max(now_s, taken_at_s + self.span_s * (1 + rounds))

    def _earliest_by_tokens(self, tokens: int, now_s: float) -> float:
        if self.limit_tokens is None:
            return now_s
        missing = self._used_tokens + tokens - self.limit_tokens
        if missing <= 0:
            return now_s
        for entry in self._log:
            missing -= entry.tokens
            if missing <= 0:
                return max(now_s, entry.sent_at_s + self.span_s)
        # Unsent requests may yet settle to less, at any moment.
        return now_s

    def snapshot(self, *, clock: Clock) -> dict[str, Any]:
        """What counts now, in wall-clock time, for the next process: {"version", "entries": [[at, n, tokens]]}."""
        offset_s = clock.wall() - clock.monotonic()
        bins: dict[int, list[int]] = {}
        for entry in self._log:
            _add(bins, entry.sent_at_s + offset_s, 1, entry.tokens)
        if self._unsent:
            reserved = self._used_tokens - sum(entry.tokens for entry in self._log)
            _add(bins, clock.wall(), self._unsent, reserved)
        entries = [[number * _BIN_S, count, tokens] for number, (count, tokens) in sorted(bins.items())]
        return {"version": 1, "entries": entries}

    def restore(self, state: Mapping[str, Any], *, clock: Clock) -> int:
        """Counts what a snapshot holds, so that a restart opens no second window. How many requests it was.

        Entries that are over are dropped; entries from the future (the clock was set back) begin now;
        what makes no sense is left out.
        """
        now_s = clock.monotonic()
        offset_s = clock.wall() - now_s
        restored: list[WindowEntry] = []
        for at, count, tokens in _valid_entries(state):
            sent_at_s = min(at - offset_s, now_s)
            if sent_at_s + self.span_s > now_s:
                restored += _entries(sent_at_s, count, tokens)
        restored.sort(key=lambda entry: entry.sent_at_s)
        self._used_tokens += sum(entry.tokens for entry in restored)
        self._log = deque(sorted((*restored, *self._log), key=lambda entry: entry.sent_at_s))
        return len(restored)


def _add(bins: dict[int, list[int]], at_s: float, count: int, tokens: int) -> None:
    total = bins.setdefault(int(at_s / _BIN_S) + 1, [0, 0])
    total[0] += count
    total[1] += tokens


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


def _entries(sent_at_s: float, count: int, tokens: int) -> list[WindowEntry]:
    entries = []
    for index in range(count):
        entry = WindowEntry(tokens if index == 0 else 0)
        entry.sent_at_s = sent_at_s
        entry._state = _COUNTED
        entries.append(entry)
    return entries


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

"""What an upstream's "too many" does to everything that goes to the same model with the same key.

One 429 pauses them all at once, for as long as the upstream asked and a little more at random, so that the
hosts of a fleet don't come back in step. Then they go on paced, at half the rate that led to it, and the pace
doubles every ten seconds until it is no brake any more, or the next 429 halves it again.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from ai_client.dialects.limit_headers import RateLimitHeaders

# How far back the rate that led to a 429 is measured.
_RATE_SPAN_S = 5.0
_RATE_LEAST_SPAN_S = 1.0
_RESTART_SHARE = 0.5
_DOUBLING_S = 10.0
# It never starts slower than this share of what the limits allow; where they are unknown, than one a second.
_SLOWEST_SHARE = 0.05
_SLOWEST_PER_S = 1.0
# A 429 without Retry-After.
_DEFAULT_PAUSE_S = 1.0
# Whoever asks for more is asked again after this: quotas are raised, and clocks are wrong.
_LONGEST_PAUSE_S = 300.0
_JITTER_SHARE = 0.1
# Somebody else uses the same key: look again this soon.
_FOREIGN_USE_PAUSE_S = 1.0


class Throttle:
    """The brake of one lane. Times are monotonic seconds.

    `full_rate_per_s` is where pacing ends: what the limits allow, or None where they are unknown.
    """

    __slots__ = (
        "_decayed",
        "_decayed_at_s",
        "_first_at_s",
        "_random",
        "_resumed_at_s",
        "_slowed_at_s",
        "_start_per_s",
        "asked_until_s",
        "full_rate_per_s",
        "not_before_s",
        "paused_until_s",
    )

    def __init__(self, *, full_rate_per_s: float | None, random_source: random.Random) -> None:
        self.full_rate_per_s = full_rate_per_s
        #: Nothing may be admitted sooner.
        self.not_before_s = 0.0
        #: The last pause that the upstream asked for: when it is over here, and when it would be by the upstream.
        self.paused_until_s = 0.0
        self.asked_until_s = 0.0
        self._random: Callable[[], float] = random_source.random
        self._start_per_s: float | None = None
        self._resumed_at_s = 0.0
        self._slowed_at_s = -math.inf
        self._decayed = 0.0
        self._first_at_s = 0.0
        self._decayed_at_s = 0.0

    def admitted(self, now_s: float) -> None:
        """One more was admitted."""
        if self._decayed == 0.0:
            self._first_at_s = now_s
        self._decayed = 1.0 + self._decayed * math.exp((self._decayed_at_s - now_s) / _RATE_SPAN_S)
        self._decayed_at_s = now_s
        if self._start_per_s is not None:
            rate = self.rate_per_s(now_s)
            if rate is not None:
                self.not_before_s = max(now_s, self.not_before_s) + 1.0 / rate

    def rate_per_s(self, now_s: float) -> float | None:
        """The pace in force; None where there is none."""
        start = self._start_per_s
        if start is None:
            return None
        since_s = min(max(0.0, now_s - self._resumed_at_s), 100.0 * _DOUBLING_S)
        rate = start * math.exp2(since_s / _DOUBLING_S)
        if rate >= (self.full_rate_per_s or 8.0 * start):
            self._start_per_s = None
            return None
        return rate

    def refused(self, now_s: float, *, sent_at_s: float, retry_after_s: float | None) -> bool:
        """A 429 for a request that was sent at `sent_at_s`. Whether it slowed the lane further.

        Those that were under way when the lane was slowed tell nothing new: they don't slow it again.
        """
        asked_s = _DEFAULT_PAUSE_S if retry_after_s is None else retry_after_s
        pause_s = min(asked_s, _LONGEST_PAUSE_S)
        until_s = now_s + pause_s * (1.0 + _JITTER_SHARE * self._random())
        self.not_before_s = max(self.not_before_s, until_s)
        if until_s > self.paused_until_s:
            self.paused_until_s = until_s
            self.asked_until_s = now_s + asked_s
        if sent_at_s <= self._slowed_at_s:
            self._resumed_at_s = max(self._resumed_at_s, self.not_before_s)
            return False
        paced = self.rate_per_s(now_s)
        before = self._recent_per_s(now_s) if paced is None else paced
        self._start_per_s = max(self._slowest_per_s(), _RESTART_SHARE * before)
        self._slowed_at_s = now_s
        self._resumed_at_s = self.not_before_s
        return True

    def parks(self, now_s: float, patience_s: float) -> float | None:
        """How long the upstream wants to be left alone, where that is more than `patience_s`; None where not."""
        if self.paused_until_s - now_s <= patience_s:
            return None
        return max(self.asked_until_s, self.paused_until_s) - now_s

    def pause(self, now_s: float, *, until_s: float, asked_until_s: float) -> None:
        """It was paused by a process before this one."""
        until_s = min(until_s, now_s + _LONGEST_PAUSE_S * (1.0 + _JITTER_SHARE))
        if until_s > max(now_s, self.paused_until_s):
            self.refused(now_s, sent_at_s=now_s, retry_after_s=0.0)
            self.paused_until_s = self.not_before_s = self._resumed_at_s = until_s
            self.asked_until_s = max(until_s, asked_until_s)

    def observe(self, limits: RateLimitHeaders, now_s: float, *, room: bool) -> bool:
        """The upstream's own count. Whether the lane was held.

        Nothing left although our own window has `room`: somebody else uses the same key. A short hold is
        enough, since each answer tells again; the reset time is when *all* is free again, far too late.
        """
        if not room:
            return False
        for state in (limits.requests, limits.tokens):
            if state.remaining == 0:
                pause_s = min(_FOREIGN_USE_PAUSE_S, state.reset_s if state.reset_s is not None else math.inf)
                self.not_before_s = max(self.not_before_s, now_s + pause_s)
                return True
        return False

    def _slowest_per_s(self) -> float:
        full = self.full_rate_per_s
        return _SLOWEST_PER_S if full is None else full * _SLOWEST_SHARE

    def _recent_per_s(self, now_s: float) -> float:
        """Admissions a second over the last seconds, or since the first one where that was later."""
        count = self._decayed * math.exp((self._decayed_at_s - now_s) / _RATE_SPAN_S)
        span_s = _RATE_SPAN_S * (1.0 - math.exp((self._first_at_s - now_s) / _RATE_SPAN_S))
        return count / max(_RATE_LEAST_SPAN_S, span_s)

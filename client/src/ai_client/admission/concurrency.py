"""A concurrency limit that follows the upstream's latency, after Netflix' Gradient2
(github.com/Netflix/concurrency-limits), made for answers of very different length.

Latency is first set against what it should be for the answer's length: `a + b * tokens`, fitted by least
squares over recent windows, so that a hundredfold longer answer is not mistaken for a slow upstream. The limit
then follows the ratio of a window's whole latency to its whole expectation: while that is near 1 the limit
grows by the square root of itself, as it rises the limit shrinks, to half at most in one step.

Gradient2 lets a long overload become the expectation. Here slow windows teach nothing; instead, if half of the
limit is gone and latency has not followed, then it was not our load that made it slow, and what is seen becomes
the expectation.
"""

from __future__ import annotations

import math

# How far latency may be over the expectation before the limit shrinks.
_TOLERANCE = 1.5
# Latency below this says nothing of an upstream that makes texts: it is the network's and our own.
_NEGLIGIBLE_S = 0.25
_SMOOTHING = 0.5
_SMALLEST_WINDOW = 8
# What a window teaches, by its ratio: all, a little, nothing.
_FAST_RATIO, _SLOW_RATIO = 1.05, 1.25
_LITTLE = 0.05
_FORGET = 0.05
# Latency has followed the limit if it is down to this share of what it was before half of the limit went.
_FOLLOWED_SHARE = 0.8
_FAILURE_CUT = 0.8
_FAILURE_PAUSE_S = 1.0


class _Expectation:
    """Latency by length: least squares with forgetting; both terms are kept from being negative."""

    __slots__ = ("_l", "_n", "_t", "_tl", "_tt", "base_s", "per_token_s")

    def __init__(self) -> None:
        self._n = self._t = self._l = self._tt = self._tl = 0.0
        self.base_s = 0.0
        self.per_token_s = 0.0

    @property
    def known(self) -> bool:
        return self._n > 0

    def learn(self, sums: tuple[float, float, float, float, float], weight: float) -> None:
        """Sums over a window: count, tokens, latency, tokens squared, tokens times latency."""
        n, t, lat, tt, tl = sums
        keep = 1.0 - _FORGET * weight
        self._n = self._n * keep + n * weight
        self._t = self._t * keep + t * weight
        self._l = self._l * keep + lat * weight
        self._tt = self._tt * keep + tt * weight
        self._tl = self._tl * keep + tl * weight
        self._fit()

    def scale(self, ratio: float) -> None:
        """The upstream has become so much slower."""
        self._l *= ratio
        self._tl *= ratio
        self._fit()

    def _fit(self) -> None:
        spread = self._n * self._tt - self._t * self._t
        slope = (
            (self._n * self._tl - self._t * self._l) / spread if spread > 1e-9 * self._n * self._tt else 0.0
        )
        base = (self._l - slope * self._t) / self._n
        if slope < 0:
            slope, base = 0.0, self._l / self._n
        elif base < 0:
            slope, base = self._tl / self._tt, 0.0
        self.base_s, self.per_token_s = base, slope


class AdaptiveConcurrency:
    """The limit of one lane: between `min_limit` and `max_limit`, where it starts."""

    __slots__ = (
        "_busiest",
        "_cut_at_s",
        "_enabled",
        "_episode",
        "_exact",
        "_expectation",
        "_l",
        "_n",
        "_t",
        "_tl",
        "_tt",
        "limit",
        "max_limit",
        "min_limit",
    )

    def __init__(self, *, max_limit: int, min_limit: int = 1, enabled: bool = True) -> None:
        self.max_limit = max_limit
        self.min_limit = max(1, min(min_limit, max_limit))
        self.limit = max_limit
        self._enabled = enabled
        self._exact = float(max_limit)
        self._expectation = _Expectation()
        self._cut_at_s = -math.inf
        #: The limit and the ratio when it became slow, while it is.
        self._episode: tuple[float, float] | None = None
        self._n = self._busiest = 0
        self._t = self._l = self._tt = self._tl = 0.0

    def observe(self, latency_s: float, tokens: int, *, in_flight: int) -> bool:
        """An answer of `tokens` came after `latency_s`. Whether the limit moved."""
        self._n += 1
        self._t += tokens
        self._l += latency_s
        self._tt += tokens * tokens
        self._tl += tokens * latency_s
        self._busiest = max(in_flight, self._busiest)
        if self._n < max(_SMALLEST_WINDOW, self.limit):
            return False
        return self._end_window()

    def failed(self, now_s: float) -> bool:
        """The upstream failed or timed out: it may be overloaded. Whether the limit moved."""
        if not self._enabled or now_s - self._cut_at_s < _FAILURE_PAUSE_S:
            return False
        self._cut_at_s = now_s
        return self._set(self._exact * _FAILURE_CUT)

    def set_max(self, max_limit: int) -> None:
        """A new upper bound. A limit that was at the old one goes with it."""
        was_at_max = self._exact >= self.max_limit
        self.max_limit = max_limit
        self.min_limit = max(1, min(self.min_limit, max_limit))
        self._set(float(max_limit) if was_at_max else self._exact)

    def _reset_window(self) -> None:
        self._n = self._busiest = 0
        self._t = self._l = self._tt = self._tl = 0.0

    def _end_window(self) -> bool:
        sums = (self._n, self._t, self._l, self._tt, self._tl)
        busiest = self._busiest
        self._reset_window()
        expectation = self._expectation
        if not expectation.known:
            expectation.learn(sums, 1.0)
            return False
        expected_s = expectation.base_s * sums[0] + expectation.per_token_s * sums[1]
        ratio = sums[2] / expected_s if expected_s > 0 else 1.0
        if sums[2] < _NEGLIGIBLE_S * sums[0]:
            ratio = min(ratio, 1.0)
        if ratio <= _SLOW_RATIO:
            expectation.learn(sums, 1.0 if ratio <= _FAST_RATIO else _LITTLE)
        if not self._enabled:
            return False
        if ratio <= _TOLERANCE:
            self._episode = None
            if busiest < self.limit / 2:
                return False  # with half of it unused the limit is not what latency depends on
        elif self._is_not_our_load(ratio):
            expectation.scale(ratio)
            self._episode = None
            return False
        gradient = max(0.5, min(1.0, _TOLERANCE / ratio))
        target = self._exact * gradient + math.sqrt(self._exact)
        return self._set(self._exact * (1 - _SMOOTHING) + target * _SMOOTHING)

    def _is_not_our_load(self, ratio: float) -> bool:
        """Whether half of the limit went since it became slow, and latency has not followed."""
        if self._episode is None:
            self._episode = (self._exact, ratio)
        limit, ratio_then = self._episode
        if self._exact > max(limit / 2, self.min_limit):
            return False
        self._episode = (self._exact, ratio)
        return ratio > _FOLLOWED_SHARE * ratio_then

    def _set(self, exact: float) -> bool:
        self._exact = min(float(self.max_limit), max(float(self.min_limit), exact))
        before, self.limit = self.limit, int(self._exact)
        return self.limit != before

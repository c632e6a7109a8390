"""A circuit breaker for each model: one that fails is left alone for a while, then tried with one request.

Only what says that the model is in trouble counts as a failure: 5xx, timeouts, lost connections, broken answers.
A refusal of the caller's mistake says that it works.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum

from ai_client.contract.options import BreakerOptions
from ai_client.errors import AIClientError, HostResourcesError, PoolTimeout, TransportError, UpstreamError


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class CircuitBreaker:
    """Times are monotonic seconds.

    Every change of state, and every probe, begins a new `period`. A request belongs to the period in which it was
    allowed, and its report counts in that period alone: an answer from before an outage neither closes nor reopens
    the breaker, and a probe that was given up for another has no say.

    Invariant: half-open, at most one probe is under way; whoever was allowed reports back with exactly one of
    `succeeded`, `failed` and `gave_up`.
    """

    __slots__ = ("_half_open_probe", "_open_s", "_opened_at_s", "_options", "_results", "period", "state")

    def __init__(self, options: BreakerOptions) -> None:
        self._options = options
        self._results: deque[bool] = deque(maxlen=options.window)
        self._open_s = options.open_s
        self._opened_at_s = 0.0
        self._half_open_probe = False
        self.period = 0
        self.state = BreakerState.CLOSED

    def rejects(self, now_s: float) -> bool:
        """Whether it is no use to queue for this model now. Changes nothing."""
        if self.state is BreakerState.OPEN:
            return now_s < self._opened_at_s + self._open_s
        return self.state is BreakerState.HALF_OPEN and self._half_open_probe

    def allow(self, now_s: float) -> int | None:
        """The period that a request now belongs to, or None where none may go. Half-open, the first is the probe."""
        if self.state is BreakerState.CLOSED:
            return self.period
        if self.state is BreakerState.OPEN and now_s >= self._opened_at_s + self._open_s:
            self._become(BreakerState.HALF_OPEN)
        if self.state is BreakerState.HALF_OPEN and not self._half_open_probe:
            self._half_open_probe = True
            self.period += 1
            return self.period
        return None

    def retry_after_s(self, now_s: float) -> float:
        """How long it stays closed to callers; 0 while a probe is under way."""
        return max(0.0, self._opened_at_s + self._open_s - now_s) if self.state is BreakerState.OPEN else 0.0

    def succeeded(self, period: int) -> None:
        """The model answered a request of `period`."""
        if period != self.period:
            return
        if self.state is BreakerState.CLOSED:
            self._results.append(True)
        elif self.state is BreakerState.HALF_OPEN:
            self._open_s = self._options.open_s
            self._become(BreakerState.CLOSED)

    def failed(self, period: int, now_s: float) -> None:
        """A request of `period` says that the model is in trouble."""
        if period != self.period:
            return
        if self.state is BreakerState.HALF_OPEN:
            self._open_s = min(self._options.open_cap_s, self._open_s * 2)
            self._open(now_s)
        elif self.state is BreakerState.CLOSED:
            self._results.append(False)
            failures = self._results.count(False)
            enough = len(self._results) >= self._options.min_attempts
            if enough and failures >= self._options.failure_share * len(self._results):
                self._open(now_s)

    def gave_up(self, period: int) -> None:
        """The probe of `period` taught nothing: it was cancelled, refused here, or throttled."""
        if period == self.period:
            self._half_open_probe = False

    def _open(self, now_s: float) -> None:
        self._opened_at_s = now_s
        self._become(BreakerState.OPEN)

    def _become(self, state: BreakerState) -> None:
        self.state = state
        self.period += 1
        self._half_open_probe = False
        self._results.clear()


def counts_as_failure(error: AIClientError) -> bool:
    """Whether `error` says that the model is in trouble."""
    return isinstance(error, UpstreamError | TransportError) and not isinstance(
        error, PoolTimeout | HostResourcesError
    )

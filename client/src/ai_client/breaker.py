"""A circuit breaker for each model: one that fails is left alone for a while, then tried with one request.

Only what says that the model is in trouble counts as a failure: 5xx, timeouts, lost connections, broken answers.
A refusal of the caller's mistake says that it works.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum

from ai_client.errors import AIClientError, PoolTimeout, TransportError, UpstreamError
from ai_client.options import BreakerOptions


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class CircuitBreaker:
    """Times are monotonic seconds.

    Invariant: half-open, at most one probe is under way; whoever was allowed reports back with exactly one of
    `succeeded`, `failed` and `gave_up`.
    """

    __slots__ = ("_half_open_probe", "_open_s", "_opened_at_s", "_options", "_results", "state")

    def __init__(self, options: BreakerOptions) -> None:
        self._options = options
        self._results: deque[bool] = deque(maxlen=options.window)
        self._open_s = options.open_s
        self._opened_at_s = 0.0
        self._half_open_probe = False
        self.state = BreakerState.CLOSED

    def is_closed_to(self, now_s: float) -> bool:
        """Whether it is no use to queue for this model now. Changes nothing."""
        if self.state is BreakerState.OPEN:
            return now_s < self._opened_at_s + self._open_s
        return self.state is BreakerState.HALF_OPEN and self._half_open_probe

    def allow(self, now_s: float) -> bool:
        """Whether a request may go; half-open, the first to ask is the probe."""
        if self.state is BreakerState.CLOSED:
            return True
        if self.state is BreakerState.OPEN and now_s >= self._opened_at_s + self._open_s:
            self.state = BreakerState.HALF_OPEN
            self._half_open_probe = False
        if self.state is BreakerState.HALF_OPEN and not self._half_open_probe:
            self._half_open_probe = True
            return True
        return False

    def retry_after_s(self, now_s: float) -> float:
        """How long it stays closed to callers; 0 while a probe is under way."""
        return max(0.0, self._opened_at_s + self._open_s - now_s) if self.state is BreakerState.OPEN else 0.0

    def succeeded(self) -> None:
        if self.state is BreakerState.CLOSED:
            self._results.append(True)
            return
        if self.state is BreakerState.HALF_OPEN:
            self.state = BreakerState.CLOSED
            self._results.clear()
            self._open_s = self._options.open_s
            self._half_open_probe = False
        # Open: it was sent before the breaker opened, and does not prove that the model recovered.

    def failed(self, now_s: float) -> None:
        if self.state is BreakerState.HALF_OPEN:
            self._open_s = min(self._options.open_cap_s, self._open_s * 2)
            self._open(now_s)
        elif self.state is BreakerState.CLOSED:
            self._results.append(False)
            failures = self._results.count(False)
            enough = len(self._results) >= self._options.min_attempts
            if enough and failures >= self._options.failure_share * len(self._results):
                self._open(now_s)

    def gave_up(self) -> None:
        """The probe taught nothing: it was cancelled, refused here, or throttled."""
        self._half_open_probe = False

    def _open(self, now_s: float) -> None:
        self.state = BreakerState.OPEN
        self._opened_at_s = now_s
        self._half_open_probe = False
        self._results.clear()


def counts_as_failure(error: AIClientError) -> bool:
    """Whether `error` says that the model is in trouble."""
    return isinstance(error, UpstreamError | TransportError) and not isinstance(error, PoolTimeout)

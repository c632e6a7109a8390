"""How requests end, into counters and events."""

from __future__ import annotations

from ai_client.calls.call import Call
from ai_client.calls.reporting import Reporter
from ai_client.contract.request import Response, Usage
from ai_client.contract.statistics import Statistics
from ai_client.platform.clock import Clock


class Outcomes:
    """Told once of each request, when it ends."""

    def __init__(self, statistics: Statistics, reporter: Reporter, clock: Clock) -> None:
        self._statistics = statistics
        self._reporter = reporter
        self._clock = clock

    def answered(self, call: Call, response: Response) -> None:
        """A whole answer went to the caller."""
        self._settled(
            call,
            status=response.status,
            cached=response.cached,
            usage=response.usage,
            cost_usd=response.cost_usd,
        )

    def stream_ended(
        self,
        call: Call,
        *,
        status: int,
        cached: bool,
        usage: Usage | None,
        cost_usd: float | None,
        first_byte_s: float | None,
    ) -> None:
        """A stream was read to its end."""
        self._settled(
            call, status=status, cached=cached, usage=usage, cost_usd=cost_usd, first_byte_s=first_byte_s
        )

    def failed(self, call: Call, error: BaseException) -> None:
        """An error, or a cancellation, went to the caller."""
        now_s = self._clock.monotonic()
        self._statistics.requests += 1
        self._statistics.request_errors += 1
        self._statistics.latency_s += now_s - call.started_at_s
        if self._reporter.events.active:
            self._reporter.failed(call, error, now_s=now_s)

    def _settled(
        self,
        call: Call,
        *,
        status: int,
        cached: bool,
        usage: Usage | None,
        cost_usd: float | None,
        first_byte_s: float | None = None,
    ) -> None:
        statistics, now_s = self._statistics, self._clock.monotonic()
        statistics.requests += 1
        statistics.latency_s += now_s - call.started_at_s
        if usage is not None and not cached:
            statistics.input_tokens += usage.input_tokens
            statistics.output_tokens += usage.output_tokens
            statistics.cost_usd += cost_usd or 0.0
        if self._reporter.events.active:
            self._reporter.settled(
                call,
                status=status,
                cached=cached,
                usage=usage,
                cost_usd=cost_usd,
                now_s=now_s,
                first_byte_s=first_byte_s,
            )

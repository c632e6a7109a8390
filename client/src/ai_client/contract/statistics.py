"""Counters, cheap enough to be always on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

# Callers make names up: what comes beyond so many is counted together.
MOST_MODELS: Final = 512
OTHER_MODELS: Final = "(other)"


@dataclass(slots=True)
class Statistics:
    """Since the client was made. An attempt is one try upstream; a request may take several, or none."""

    #: Attempts that ended, and those of them that failed, by model.
    attempts: dict[str, int] = field(default_factory=dict)
    attempt_errors: dict[str, int] = field(default_factory=dict)
    requests: int = 0
    request_errors: int = 0
    retries: int = 0
    fallbacks: int = 0
    throttled: int = 0
    cache_hits: int = 0
    cache_misses: int = 0
    shared: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    latency_s: float = 0.0

    def attempt_ended(self, model: str, *, is_error: bool) -> None:
        """One try upstream is over."""
        if model not in self.attempts and len(self.attempts) >= MOST_MODELS:
            model = OTHER_MODELS
        self.attempts[model] = self.attempts.get(model, 0) + 1
        if is_error:
            self.attempt_errors[model] = self.attempt_errors.get(model, 0) + 1

    def as_dict(self) -> dict[str, Any]:
        """`requests` and `errors`: attempts that ended and failed, by model; `total_*` are their sums.

        `requests_ended` and `requests_failed` count requests as their callers see them: with all their attempts, and
        answers from the cache.
        """
        ended, failed = sum(self.attempts.values()), sum(self.attempt_errors.values())
        return {
            "requests": dict(self.attempts),
            "errors": dict(self.attempt_errors),
            "total_requests": ended,
            "total_errors": failed,
            "error_rate": failed / ended if ended else 0.0,
            "requests_ended": self.requests,
            "requests_failed": self.request_errors,
            "retries": self.retries,
            "fallbacks": self.fallbacks,
            "throttled": self.throttled,
            "cache_hits": self.cache_hits,
            "cache_misses": self.cache_misses,
            "shared": self.shared,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cost_usd": self.cost_usd,
            "average_latency_s": self.latency_s / self.requests if self.requests else 0.0,
        }

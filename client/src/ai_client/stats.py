"""Counters, cheap enough to be always on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Statistics:
    """Since the client was made. An attempt is one try upstream; a request may take several, or none."""

    attempts: int = 0
    attempt_errors: int = 0
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

    def as_dict(self) -> dict[str, Any]:
        """`requests` and `errors` count attempts that ended, `total_*` requests that ended."""
        ended = self.attempts
        return {
            "requests": ended,
            "errors": self.attempt_errors,
            "total_requests": self.requests,
            "total_errors": self.request_errors,
            "error_rate": self.attempt_errors / ended if ended else 0.0,
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

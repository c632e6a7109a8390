"""What is measured of one request, and what many of them come to. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Sample:
    """One request. Times in seconds from the run's begin; `first_byte_s` is the wait for a stream's first byte."""

    began_s: float
    took_s: float
    code: str
    cost_usd: float
    is_cached: bool
    first_byte_s: float | None = None

    @property
    def is_ok(self) -> bool:
        """Whether it was answered."""
        return not self.code


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run came to. Latencies are those of answered requests, in milliseconds; None without any."""

    provider: str
    requests: int
    errors: dict[str, int]
    seconds: float
    average_ms: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    first_byte_p50_ms: float | None
    throughput_rps: float
    cost_usd: float
    cost_per_1000_usd: float
    cache_hit_rate: float
    error_rate: float
    pool_peak: int | None
    pool_size: int | None

    def as_json(self) -> dict[str, Any]:
        """All fields by name."""
        return asdict(self)


def summarize(
    provider: str,
    samples: Sequence[Sample],
    *,
    seconds: float,
    pool_peak: int | None = None,
    pool_size: int | None = None,
) -> Summary:
    """From samples to a summary."""
    answered = sorted(sample.took_s for sample in samples if sample.is_ok)
    first_bytes = sorted(sample.first_byte_s for sample in samples if sample.first_byte_s is not None)
    errors = Counter(sample.code for sample in samples if not sample.is_ok)
    count = len(samples)
    cost = sum(sample.cost_usd for sample in samples)
    hits = sum(sample.is_cached for sample in samples)
    return Summary(
        provider=provider,
        requests=count,
        errors=dict(errors),
        seconds=seconds,
        average_ms=1000 * sum(answered) / len(answered) if answered else None,
        p50_ms=quantile_ms(answered, 0.50),
        p95_ms=quantile_ms(answered, 0.95),
        p99_ms=quantile_ms(answered, 0.99),
        first_byte_p50_ms=quantile_ms(first_bytes, 0.50),
        throughput_rps=len(answered) / seconds if seconds > 0 else 0.0,
        cost_usd=cost,
        cost_per_1000_usd=1000 * cost / len(answered) if answered else 0.0,
        cache_hit_rate=hits / len(answered) if answered else 0.0,
        error_rate=sum(errors.values()) / count if count else 0.0,
        pool_peak=pool_peak,
        pool_size=pool_size,
    )


def quantile_ms(ordered_s: Sequence[float], share: float) -> float | None:
    """The smallest value that `share` of all do not exceed (nearest rank), in milliseconds."""
    if not ordered_s:
        return None
    rank = -(-len(ordered_s) * share // 1)
    return 1000 * ordered_s[max(0, int(rank) - 1)]

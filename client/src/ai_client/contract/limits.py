"""Limits as providers count them, of one model or of all of one upstream's."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLimits:
    """What may be sent of a model. None: no limit.

    Input and output tokens are limited together (`tokens_…`), apart, or both. `burst_s`: of the minute's limits no
    more than its part in any so many seconds. `by_estimate`: tokens count as they were estimated, for providers that
    do not give back what was not used.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    input_tokens_per_minute: int | None = None
    output_tokens_per_minute: int | None = None
    images_per_minute: int | None = None
    requests_per_day: int | None = None
    tokens_per_day: int | None = None
    burst_s: float | None = None
    by_estimate: bool = False

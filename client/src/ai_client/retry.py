"""Whether and when a failed attempt goes again. Pure decisions; the only retry layer there is.

What may go again: what was never sent; what the upstream refused (429) or says it failed at (500, 503, 529);
and what may have been executed (other 5xx, 408, timeouts, lost connections, cut-off answers) only where that is
safe: embeddings and models, which only cost; or asked for, by `resend_unsafe` or an idempotency key of the
caller's own; or where the upstream is known to honour idempotency keys.

Every extra attempt but a resend after 429 draws on a budget that first attempts fill, so that an outage adds
at most `budget_share` to the load, in any stretch of time, plus `budget_size` once. After a 429 the lane's
throttle has cut the rate by half already.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum

from ai_client.errors import (
    AIClientError,
    MalformedResponseError,
    RateLimitError,
    ServerError,
    TLSVerificationError,
    TransportError,
)
from ai_client.options import RetryOptions
from ai_client.request import Request

# The upstream itself says that it produced no answer. Other 5xx come from proxies in front of it.
_FAILED_STATUSES = frozenset((500, 503, 529))
_SAFE_ENDPOINTS = frozenset(("embeddings", "models"))
_LONGEST_RETRY_AFTER_S = 600.0


class RetryBudget:
    """A bucket that first attempts fill by `share` each, up to `size`; an extra attempt takes 1 out."""

    __slots__ = ("_level", "share", "size")

    def __init__(self, *, share: float, size: int) -> None:
        self.share = share
        self.size = size
        self._level = float(size)

    def deposit(self) -> None:
        if self._level < self.size:
            self._level += self.share

    def withdraw(self) -> bool:
        if self._level < 1.0:
            return False
        self._level -= 1.0
        return True


@dataclass(frozen=True, slots=True)
class Again:
    """Wait, then send again."""

    wait_s: float


class GiveUp(StrEnum):
    """Why it does not go again."""

    #: Sending it again is useless, unsafe or too late: the failure stands as it is.
    FAILED = "failed"
    COUNT_SPENT = "count-spent"
    BUDGET_SPENT = "budget-spent"


def is_resend_safe(request: Request, options: RetryOptions) -> bool:
    """Whether the request may go again although it may have been executed."""
    return (
        request.resend_unsafe
        or request.endpoint in _SAFE_ENDPOINTS
        or request.idempotency_key is not None
        or options.upstream_is_idempotent
    )


def may_have_been_executed(error: AIClientError) -> bool:
    """Whether the upstream may have done (and billed) the work that `error` kept from us."""
    if isinstance(error, ServerError):
        return error.status not in _FAILED_STATUSES
    if isinstance(error, TransportError):
        return error.sent
    return isinstance(error, MalformedResponseError)


def is_passing(error: AIClientError) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(error, RateLimitError):
        return not error.quota_spent
    if isinstance(error, TLSVerificationError):
        return False
    return isinstance(error, ServerError | TransportError | MalformedResponseError)


def backoff_s(retry: int, options: RetryOptions, random_source: random.Random) -> float:
    """Full jitter (Brooker, "Exponential backoff and jitter", AWS 2015); `retry` counts from 0."""
    return random_source.random() * min(options.backoff_cap_s, options.backoff_base_s * 2.0**retry)


def decide(
    error: AIClientError,
    *,
    retry: int,
    max_retries: int,
    resend_safe: bool,
    options: RetryOptions,
    budget: RetryBudget,
    random_source: random.Random,
    remaining_s: float | None,
) -> Again | GiveUp:
    """What follows the failure of an attempt after `retry` retries. Draws on the budget where it goes again."""
    if not is_passing(error) or (may_have_been_executed(error) and not resend_safe):
        return GiveUp.FAILED
    if retry >= max_retries:
        return GiveUp.COUNT_SPENT if retry else GiveUp.FAILED
    asked_s = getattr(error, "retry_after_s", None) or 0.0
    wait_s = max(asked_s, backoff_s(retry, options, random_source))
    if asked_s > _LONGEST_RETRY_AFTER_S or (remaining_s is not None and wait_s >= remaining_s):
        return GiveUp.FAILED
    if not isinstance(error, RateLimitError) and not budget.withdraw():
        return GiveUp.BUDGET_SPENT
    return Again(wait_s)

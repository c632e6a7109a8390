"""Whether and when a failed attempt goes again. Pure decisions; the only retry layer there is.

A failed attempt goes again

- always, where it was never sent, where the upstream refused it (429), or where the upstream says that it failed at it
  (498, 500, 503, 529): nothing was done, so nothing is done twice;
- only where a second execution does no harm, if the upstream may have executed it (other 5xx, 408, a timeout, a lost
  connection, a cut-off answer). `is_resend_safe` says where that is.

Retries are bounded by a budget (`RetryBudget`). Every first attempt adds `budget_share` to it and every retry takes 1
out, so that in an outage retries add at most `budget_share` to the load, and `budget_size` once. Two kinds are not
counted: a retry after 429, as the throttle of that model has halved the rate already, and a fallback that answered,
which gives back what it took, as there was no outage of everything.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum

from ai_client.contract.apis import api_of
from ai_client.contract.options import RetryOptions
from ai_client.contract.request import Request
from ai_client.errors import (
    AIClientError,
    MalformedResponseError,
    RateLimitError,
    ServerError,
    TLSVerificationError,
    TransportError,
)

# The upstream itself says that it produced no answer, or Cloudflare that it never reached it (refused, no way to it, no
# TLS, no name). Other 5xx come from proxies in front of it.
_FAILED_STATUSES = frozenset((498, 500, 503, 529, 521, 523, 525, 526, 530))


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

    def give_back(self, attempts: int) -> None:
        """After a fallback answered: the attempts on the way to it are not counted."""
        self._level = min(float(self.size), self._level + attempts)


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
    """Whether the request may go again although it may have been executed.

    It only reads, counts or computes (embeddings, rerank); its caller says so (`resend_unsafe`) or gave an idempotency
    key; or the upstream is known to honour idempotency keys.
    """
    return (
        request.resend_unsafe
        or api_of(request.endpoint).is_repeatable
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
    patience_s: float,
) -> Again | GiveUp:
    """What follows the failure of an attempt after `retry` retries. Draws on the budget where it goes again.

    Whoever is asked to wait longer than `patience_s` does not: the failure says how long.
    """
    if not (error.may_go_again and is_passing(error)) or (may_have_been_executed(error) and not resend_safe):
        return GiveUp.FAILED
    if retry >= max_retries:
        return GiveUp.COUNT_SPENT if retry else GiveUp.FAILED
    asked_s = getattr(error, "retry_after_s", None) or 0.0
    wait_s = max(asked_s, backoff_s(retry, options, random_source))
    if asked_s > patience_s or (remaining_s is not None and wait_s >= remaining_s):
        return GiveUp.FAILED
    if not isinstance(error, RateLimitError) and not budget.withdraw():
        return GiveUp.BUDGET_SPENT
    return Again(wait_s)

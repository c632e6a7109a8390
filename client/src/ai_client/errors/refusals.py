"""Refused or given up here: admission, deadlines, budgets, retries."""

from __future__ import annotations

from ai_client.errors.base import AIClientError


class AdmissionError(AIClientError):
    """Refused here, before anything was sent or spent."""

    http_status = 503
    code = "not_admitted"
    default_remedy = "Try again later."


class OverloadError(AdmissionError):
    """The queue is full: `queued` of `limit` wait. Remedy: send less, or retry after `retry_after_s`."""

    error_type = "overloaded_error"
    code = "overloaded"
    default_remedy = "Send less at once, or raise the queue's bound."

    def __init__(self, culprit: str, *, queued: int, limit: int, retry_after_s: float | None = None) -> None:
        super().__init__(culprit, f"{queued} requests wait already (the queue's bound is {limit})")
        self.queued = queued
        self.limit = limit
        self.retry_after_s = retry_after_s


class BreakerOpenError(AdmissionError):
    """`model` failed so often that it is left alone for `retry_after_s`. Remedy: wait, or set a fallback."""

    code = "circuit_open"
    default_remedy = "Wait, or name a fallback model."

    def __init__(self, model: str, *, retry_after_s: float) -> None:
        super().__init__(
            f"model {model!r}", f"failed repeatedly and is tried again in {max(0.0, retry_after_s):.1f} s"
        )
        self.model = model
        self.retry_after_s = retry_after_s


class LeaseEndedError(AdmissionError):
    """What this process was lent of a shared quota ended before the request was written, or another process has it."""

    code = "lease_ended"

    def __init__(self) -> None:
        super().__init__(
            "request", "was not sent: the quota that it was admitted under is not this process's any more"
        )


class CacheMissError(AdmissionError):
    """`only-if-cached` was asked for and no answer is cached. Remedy: ask without it."""

    http_status = 504
    code = "not_cached"
    default_remedy = "Send the request without only-if-cached."


class LedgerUnavailableError(AdmissionError):
    """The ledger can't be written: without it a hard budget can't be kept. Remedy: that of its file."""

    code = "ledger_unavailable"
    default_remedy = (
        "Mend the ledger's file or disk, or set hard_stop = false in [budget] to go on without it."
    )


class DeadlineExceeded(AIClientError):  # noqa: N818 - a name that users know
    """The deadline of `deadline_s` passed in `phase` ("queue", "retry", "upstream"), or can't be met.

    `earliest_s`: the soonest the request could have been admitted, where it was refused for that.
    Remedy: a longer deadline, a more urgent priority, or less load.
    """

    http_status = 504
    error_type = "timeout_error"
    code = "deadline_exceeded"
    default_remedy = "Give it more time, a more urgent priority, or send less."

    def __init__(
        self,
        culprit: str,
        *,
        deadline_s: float,
        phase: str,
        earliest_s: float | None = None,
        request_id: str = "",
    ) -> None:
        reason = f"its deadline of {deadline_s:g} s passed ({phase})"
        if earliest_s is not None:
            reason = f"can't be admitted before {earliest_s:.1f} s, past its deadline of {deadline_s:g} s"
        super().__init__(culprit, reason, request_id=request_id)
        self.deadline_s = deadline_s
        self.phase = phase
        self.earliest_s = earliest_s


_SHARED_WAITS = "Try again when that is over; raising the budget does not help."
_SHARED_REMEDY = (
    "Try again in some seconds, when this host may have more of it; "
    "else raise the budget, or wait for the next period."
)


class BudgetExceeded(AIClientError):  # noqa: N818 - a name that users know
    """A budget's hard stop: `scope` ("all" or a tenant), `period` ("day" or "month"), in US dollars.

    `allowed_usd` is what this host may use of a budget that hosts share, where that is what was used up.

    Remedy: raise the budget, or wait until `resets_at` (seconds since the epoch); of a shared one also what the message
    says, as this host may be granted more at any time.
    """

    http_status = 429
    error_type = "insufficient_quota"
    code = "budget_exceeded"
    default_remedy = "Raise the budget, or wait for the next period."

    def __init__(
        self,
        culprit: str,
        *,
        scope: str,
        period: str,
        limit_usd: float,
        spent_usd: float,
        asked_usd: float,
        resets_at: float | None = None,
        allowed_usd: float | None = None,
        trouble: str | None = None,
    ) -> None:
        reason = (
            f"the {period}'s budget of {scope} is ${limit_usd:.4f}, "
            f"${spent_usd:.4f} are spent or reserved and this may cost ${asked_usd:.4f}"
        )
        if allowed_usd is not None:
            reason = (
                f"hosts share the {period}'s budget of {scope} (${limit_usd:.4f}), this one may use "
                f"${allowed_usd:.4f} of it, ${spent_usd:.4f} are spent or reserved and this may cost ${asked_usd:.4f}"
            )
            reason = f"{reason}; {trouble}" if trouble else reason
        remedy = None if allowed_usd is None else _SHARED_WAITS if trouble else _SHARED_REMEDY
        super().__init__(culprit, reason, remedy=remedy)
        self.scope = scope
        self.period = period
        self.limit_usd = limit_usd
        self.spent_usd = spent_usd
        self.asked_usd = asked_usd
        self.resets_at = resets_at
        self.allowed_usd = allowed_usd


class MaxRetriesExceeded(AIClientError):  # noqa: N818 - a name that users know
    """Gave up after `attempts`; `last` is the last failure (also `__cause__`), `budget_spent` if the
    retry budget, not the count, ended it. Remedy: that of the last failure."""

    http_status = 502
    code = "max_retries_exceeded"

    def __init__(
        self,
        culprit: str,
        *,
        attempts: int,
        last: AIClientError,
        budget_spent: bool = False,
        request_id: str = "",
    ) -> None:
        why = "the retry budget is spent" if budget_spent else "no attempt is left"
        reason = f"failed {attempts} times and {why}; last: {last.culprit}: {last.reason}"
        super().__init__(culprit, reason, remedy=last.remedy, request_id=request_id)
        self.attempts = attempts
        self.last = last
        self.budget_spent = budget_spent

    @property
    def retry_after_s(self) -> float | None:
        """What the last failure asked for, if it did."""
        value = getattr(self.last, "retry_after_s", None)
        return value if isinstance(value, float) else None

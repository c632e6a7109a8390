"""Whether and when a failed attempt goes again."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_client.calls.retry import Again, GiveUp, RetryBudget, backoff_s, decide, is_resend_safe
from ai_client.contract.options import RetryOptions
from ai_client.contract.request import Request
from ai_client.errors import (
    AIClientError,
    AuthenticationError,
    BadRequestError,
    BudgetExceeded,
    ConnectError,
    ConnectionLostError,
    DeadlineExceeded,
    MalformedResponseError,
    OverloadError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    TLSVerificationError,
    TransportTimeoutError,
)

OPTIONS = RetryOptions()


def verdict(
    error: AIClientError,
    *,
    retry: int = 0,
    resend_safe: bool = False,
    budget: RetryBudget | None = None,
    remaining_s: float | None = None,
) -> Again | GiveUp:
    return decide(
        error,
        retry=retry,
        max_retries=3,
        resend_safe=resend_safe,
        options=OPTIONS,
        budget=budget or RetryBudget(share=0.15, size=10),
        random_source=random.Random(1),  # noqa: S311
        remaining_s=remaining_s,
        patience_s=60.0,
    )


@pytest.mark.parametrize(
    "error",
    [
        BadRequestError("u", "400", status=400),
        PermissionDeniedError("u", "403"),
        AuthenticationError("u", "401"),
        BudgetExceeded("t", scope="all", period="day", limit_usd=1, spent_usd=1, asked_usd=1),
        DeadlineExceeded("r", deadline_s=1, phase="queue"),
        OverloadError("t", queued=1, limit=1),
        RateLimitError("u", "429", quota_spent=True),
        TLSVerificationError("h", verify_reason="expired", tls_version="TLSv1.3"),
    ],
)
def test_what_time_does_not_mend_is_never_retried(error: AIClientError) -> None:
    """Not even where resending is safe."""
    assert verdict(error, resend_safe=True) is GiveUp.FAILED


@pytest.mark.parametrize(
    "error",
    [
        ConnectError("h", "refused"),
        TransportTimeoutError("h", phase="connect", timeout_s=1, sent=False),
        RateLimitError("u", "429"),
        ServerError("u", "500", status=500),
        ServerError("u", "503", status=503),
        ServerError("u", "529", status=529),
    ],
)
def test_what_was_surely_not_executed_is_retried(error: AIClientError) -> None:
    """Never sent, refused, or failed by the upstream's own word."""
    assert isinstance(verdict(error), Again)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionLostError("h", "reset", sent=True),
        TransportTimeoutError("h", phase="headers", timeout_s=1, sent=True),
        TransportTimeoutError("h", phase="read", timeout_s=1, sent=True),
        MalformedResponseError("u", "cut off"),
        ServerError("u", "502", status=502),
        ServerError("u", "504", status=504),
        ServerError("u", "408", status=408),
    ],
)
def test_what_may_have_been_executed_is_retried_only_where_that_is_safe(error: AIClientError) -> None:
    """Or asked for."""
    assert verdict(error) is GiveUp.FAILED
    assert isinstance(verdict(error, resend_safe=True), Again)


@pytest.mark.parametrize(
    ("request_", "options", "expected"),
    [
        (Request(endpoint="chat/completions", body={}), OPTIONS, False),
        (Request(endpoint="completions", body={}), OPTIONS, False),
        (Request(endpoint="embeddings", body={}), OPTIONS, True),
        (Request(endpoint="models", body={}), OPTIONS, True),
        (Request(endpoint="chat/completions", body={}, resend_unsafe=True), OPTIONS, True),
        (Request(endpoint="chat/completions", body={}, idempotency_key="mine"), OPTIONS, True),
        (Request(endpoint="chat/completions", body={}), RetryOptions(upstream_is_idempotent=True), True),
    ],
)
def test_what_is_safe_to_send_twice(request_: Request, options: RetryOptions, expected: bool) -> None:
    """What only costs, what the caller asked for, what the upstream knows again."""
    assert is_resend_safe(request_, options) is expected


@given(retry=st.integers(0, 2), asked_s=st.floats(0, 500), seed=st.integers(0, 1000))
def test_it_waits_for_the_longer_of_what_was_asked_and_its_own_backoff(
    retry: int, asked_s: float, seed: int
) -> None:
    """The old playbooks took the shorter."""
    error = RateLimitError("u", "429", retry_after_s=asked_s)
    again = decide(
        error,
        retry=retry,
        max_retries=3,
        resend_safe=False,
        options=OPTIONS,
        budget=RetryBudget(share=0.15, size=10),
        random_source=random.Random(seed),  # noqa: S311
        remaining_s=None,
        patience_s=math.inf,
    )
    assert isinstance(again, Again)
    assert again.wait_s == max(asked_s, backoff_s(retry, OPTIONS, random.Random(seed)))  # noqa: S311


@given(retry=st.integers(0, 40), seed=st.integers(0, 1000))
def test_the_backoff_is_full_jitter_below_its_cap(retry: int, seed: int) -> None:
    """Uniform from 0 to min(cap, base * 2**retry)."""
    wait_s = backoff_s(retry, OPTIONS, random.Random(seed))  # noqa: S311
    assert 0 <= wait_s <= min(30.0, 0.5 * 2**retry)


def test_it_gives_up_after_max_retries() -> None:
    """Three beyond the first, by default."""
    error = ServerError("u", "503", status=503)
    assert isinstance(verdict(error, retry=2), Again)
    assert verdict(error, retry=3) is GiveUp.COUNT_SPENT


def test_a_wait_past_the_deadline_is_not_begun() -> None:
    """The caller gets the failure at once, with its Retry-After, not a timeout later."""
    error = RateLimitError("u", "429", retry_after_s=10.0)
    assert verdict(error, remaining_s=9.0) is GiveUp.FAILED
    assert isinstance(verdict(error, remaining_s=60.0), Again)


def test_an_outage_never_multiplies_load_by_more_than_the_budget() -> None:
    """Every request fails and wants three retries; the load stays under 1.2 times."""
    budget = RetryBudget(share=0.15, size=10)
    requests, attempts = 1000, 0
    for _ in range(requests):
        budget.deposit()
        attempts += 1
        for retry in range(3):
            if not isinstance(
                verdict(ServerError("u", "503", status=503), retry=retry, budget=budget), Again
            ):
                break
            attempts += 1
    assert requests < attempts <= 1.2 * requests


@given(st.lists(st.booleans(), max_size=400))
def test_in_any_stretch_retries_are_bounded_by_the_share(first_attempts: list[bool]) -> None:
    """share * first attempts + size, from any moment on: no burst after a quiet hour."""
    budget = RetryBudget(share=0.15, size=10)
    events = []
    for is_first in first_attempts:
        if is_first:
            budget.deposit()
        events.append((is_first, not is_first and budget.withdraw()))
    for start in range(0, len(events), 37):
        stretch = events[start:]
        assert sum(retried for _, retried in stretch) <= 0.15 * sum(first for first, _ in stretch) + 10


def test_a_resend_after_429_needs_no_budget() -> None:
    """The throttle has cut the rate already."""
    empty = RetryBudget(share=0.1, size=0)
    assert isinstance(verdict(RateLimitError("u", "429"), budget=empty), Again)
    assert verdict(ServerError("u", "503", status=503), budget=empty) is GiveUp.BUDGET_SPENT


def test_nobody_waits_longer_than_its_patience() -> None:
    """The failure says how long instead, or a fallback answers."""
    assert isinstance(verdict(RateLimitError("u", "429", retry_after_s=59.0)), Again)
    assert verdict(RateLimitError("u", "429", retry_after_s=61.0)) is GiveUp.FAILED

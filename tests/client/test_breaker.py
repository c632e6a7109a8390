"""The circuit breaker of a model."""

from __future__ import annotations

import pytest

from ai_client.breaker import BreakerState, CircuitBreaker, counts_as_failure
from ai_client.errors import (
    AIClientError,
    AuthenticationError,
    BadRequestError,
    ConnectionLostError,
    MalformedResponseError,
    PoolTimeout,
    RateLimitError,
    ServerError,
)
from ai_client.options import BreakerOptions

OPTIONS = BreakerOptions(window=10, min_attempts=4, failure_share=0.5, open_s=5.0, open_cap_s=15.0)


def opened() -> CircuitBreaker:
    breaker = CircuitBreaker(OPTIONS)
    for _ in range(4):
        breaker.failed(100.0)
    return breaker


def test_it_opens_when_half_of_the_last_attempts_failed() -> None:
    """Not before there are enough of them."""
    breaker = CircuitBreaker(OPTIONS)
    for _ in range(3):
        breaker.failed(100.0)
    assert breaker.state is BreakerState.CLOSED
    breaker.failed(100.0)
    assert breaker.state is BreakerState.OPEN
    assert not breaker.allow(101.0)
    assert breaker.is_closed_to(101.0)
    assert breaker.retry_after_s(101.0) == 4.0


def test_a_few_failures_among_many_do_not_open_it() -> None:
    """Four of ten are less than half; old results leave the window."""
    breaker = CircuitBreaker(OPTIONS)
    for _ in range(10):
        breaker.succeeded()
    for _ in range(4):
        breaker.failed(100.0)
    assert breaker.state is BreakerState.CLOSED


def test_after_a_while_one_probe_goes_and_only_one() -> None:
    """Half-open."""
    breaker = opened()
    assert not breaker.is_closed_to(105.0)
    assert breaker.allow(105.0)
    assert breaker.state is BreakerState.HALF_OPEN
    assert not breaker.allow(105.0)
    assert breaker.is_closed_to(105.0)


def test_a_probe_that_succeeds_closes_it() -> None:
    """With a clean record: one failure does not open it again."""
    breaker = opened()
    breaker.allow(105.0)
    breaker.succeeded()
    assert breaker.state is BreakerState.CLOSED
    breaker.failed(106.0)
    assert breaker.allow(106.0)


def test_a_probe_that_fails_opens_it_for_twice_as_long() -> None:
    """Up to the cap."""
    breaker, now_s = opened(), 105.0
    for wait_s in (10.0, 15.0, 15.0):
        assert breaker.allow(now_s)
        breaker.failed(now_s)
        assert breaker.retry_after_s(now_s) == wait_s
        now_s += wait_s


def test_a_probe_that_taught_nothing_makes_way_for_another() -> None:
    """Cancelled, or throttled."""
    breaker = opened()
    breaker.allow(105.0)
    breaker.gave_up()
    assert breaker.allow(105.0)


def test_an_answer_to_an_old_request_does_not_close_an_open_breaker() -> None:
    """It was sent before the trouble."""
    breaker = opened()
    breaker.succeeded()
    assert breaker.state is BreakerState.OPEN


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ServerError("u", "r"), True),
        (MalformedResponseError("u", "r"), True),
        (ConnectionLostError("u", "r", sent=True), True),
        (PoolTimeout("p", size=1, in_use=1, timeout_s=1), False),
        (RateLimitError("u", "r"), False),
        (BadRequestError("u", "r"), False),
        (AuthenticationError("u", "r"), False),
    ],
)
def test_only_the_models_own_trouble_counts(error: AIClientError, expected: bool) -> None:
    """Not the caller's mistakes, not throttling, not our own pool."""
    assert counts_as_failure(error) is expected

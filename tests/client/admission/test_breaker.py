"""The circuit breaker of a model."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ai_client.admission.breaker import BreakerState, CircuitBreaker, counts_as_failure
from ai_client.contract.options import BreakerOptions
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

OPTIONS = BreakerOptions(window=10, min_attempts=4, failure_share=0.5, open_s=5.0, open_cap_s=15.0)


def opened() -> CircuitBreaker:
    breaker = CircuitBreaker(OPTIONS)
    for _ in range(4):
        breaker.failed(breaker.period, 100.0)
    return breaker


def asked(breaker: CircuitBreaker, now_s: float) -> int:
    """The period of a request that may go."""
    period = breaker.allow(now_s)
    assert period is not None
    return period


def test_it_opens_when_half_of_the_last_attempts_failed() -> None:
    """Not before there are enough of them."""
    breaker = CircuitBreaker(OPTIONS)
    for _ in range(3):
        breaker.failed(breaker.period, 100.0)
    assert breaker.state is BreakerState.CLOSED
    breaker.failed(breaker.period, 100.0)
    assert breaker.state is BreakerState.OPEN
    assert breaker.allow(101.0) is None
    assert breaker.rejects(101.0)
    assert breaker.retry_after_s(101.0) == 4.0


def test_a_few_failures_among_many_do_not_open_it() -> None:
    """Four of ten are less than half; old results leave the window."""
    breaker = CircuitBreaker(OPTIONS)
    for _ in range(10):
        breaker.succeeded(breaker.period)
    for _ in range(4):
        breaker.failed(breaker.period, 100.0)
    assert breaker.state is BreakerState.CLOSED


def test_after_a_while_one_probe_goes_and_only_one() -> None:
    """Half-open."""
    breaker = opened()
    assert not breaker.rejects(105.0)
    assert breaker.allow(105.0) is not None
    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.allow(105.0) is None
    assert breaker.rejects(105.0)


def test_a_probe_that_succeeds_closes_it() -> None:
    """With a clean record: one failure does not open it again."""
    breaker = opened()
    breaker.succeeded(asked(breaker, 105.0))
    assert breaker.state is BreakerState.CLOSED
    breaker.failed(breaker.period, 106.0)
    assert breaker.allow(106.0) is not None


def test_after_a_recovery_it_pauses_as_long_as_at_first() -> None:
    """What an earlier outage had doubled is over."""
    breaker = opened()
    breaker.failed(asked(breaker, 105.0), 105.0)
    breaker.succeeded(asked(breaker, 115.0))
    for _ in range(4):
        breaker.failed(breaker.period, 200.0)
    assert breaker.retry_after_s(200.0) == OPTIONS.open_s


def test_a_probe_that_fails_opens_it_for_twice_as_long() -> None:
    """Up to the cap."""
    breaker, now_s = opened(), 105.0
    for wait_s in (10.0, 15.0, 15.0):
        breaker.failed(asked(breaker, now_s), now_s)
        assert breaker.retry_after_s(now_s) == wait_s
        now_s += wait_s


def test_a_probe_that_taught_nothing_makes_way_for_another() -> None:
    """Cancelled, or throttled."""
    breaker = opened()
    breaker.gave_up(asked(breaker, 105.0))
    assert breaker.allow(105.0) is not None


@pytest.mark.parametrize("is_probing", [False, True])
def test_an_answer_from_before_the_outage_changes_nothing(is_probing: bool) -> None:
    """Good or bad, open or half-open: it was sent before the trouble, and the probe is out to tell of now."""
    breaker = CircuitBreaker(OPTIONS)
    before = breaker.period
    for _ in range(4):
        breaker.failed(before, 100.0)
    if is_probing:
        asked(breaker, 105.0)
    state, wait_s = breaker.state, breaker.retry_after_s(105.0)
    breaker.succeeded(before)
    breaker.failed(before, 105.0)
    breaker.gave_up(before)
    assert (breaker.state, breaker.retry_after_s(105.0)) == (state, wait_s)
    assert breaker.rejects(105.0) is is_probing


class Breaker(RuleBasedStateMachine):
    """Requests that report in any order and at any time, against what a user was promised."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = CircuitBreaker(OPTIONS)
        self.now_s = 0.0
        self.under_way: list[tuple[int, BreakerState]] = []
        #: When it opened, and for how long it must stay so.
        self.opened_at_s, self.open_s = 0.0, OPTIONS.open_s

    @rule(wait_s=st.sampled_from([0.0, 0.1, 1.0, 4.9, 5.0, 20.0]))
    def time_passes(self, wait_s: float) -> None:
        self.now_s += wait_s

    @rule()
    def somebody_asks(self) -> None:
        before = self.breaker.state
        is_due = self.now_s >= self.opened_at_s + self.open_s
        period = self.breaker.allow(self.now_s)
        if before is BreakerState.OPEN:
            assert (period is not None) is is_due
        if period is not None:
            self.under_way.append((period, self.breaker.state))

    @rule(index=st.integers(0, 50), how=st.sampled_from(["succeeded", "failed", "gave_up"]))
    def somebody_reports(self, index: int, how: str) -> None:
        if not self.under_way:
            return
        period, asked_in = self.under_way.pop(index % len(self.under_way))
        before, is_late = self.breaker.state, period != self.breaker.period
        if how == "failed":
            self.breaker.failed(period, self.now_s)
        else:
            getattr(self.breaker, how)(period)
        after = self.breaker.state
        if is_late or how == "gave_up":
            assert after is before
        elif asked_in is BreakerState.HALF_OPEN:
            assert after is (BreakerState.CLOSED if how == "succeeded" else BreakerState.OPEN)
        if after is BreakerState.CLOSED and before is not after:
            self.open_s = OPTIONS.open_s
        elif after is BreakerState.OPEN and before is not after:
            if before is BreakerState.HALF_OPEN:
                self.open_s = min(OPTIONS.open_cap_s, self.open_s * 2)
            self.opened_at_s = self.now_s

    @invariant()
    def at_most_one_probe_is_out(self) -> None:
        probes = [period for period, asked_in in self.under_way if asked_in is BreakerState.HALF_OPEN]
        assert probes.count(self.breaker.period) <= 1

    @invariant()
    def it_says_how_long(self) -> None:
        left_s = max(0.0, self.opened_at_s + self.open_s - self.now_s)
        is_open = self.breaker.state is BreakerState.OPEN
        assert self.breaker.retry_after_s(self.now_s) == pytest.approx(left_s if is_open else 0.0)


TestBreakerInAnyOrder = Breaker.TestCase
TestBreakerInAnyOrder.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


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

"""What a 429 does to its lane."""

from __future__ import annotations

import random

import pytest

from ai_client.admission.throttle import Throttle
from ai_client.dialects.limit_headers import LimitState, RateLimitHeaders


def make(full_rate_per_s: float | None = 50.0) -> Throttle:
    return Throttle(full_rate_per_s=full_rate_per_s, random_source=random.Random(1))  # noqa: S311


def busy(throttle: Throttle, *, per_s: float, for_s: float = 20.0) -> float:
    """Admits at a steady rate; the time after it."""
    now_s = 0.0
    for index in range(int(per_s * for_s)):
        now_s = index / per_s
        throttle.admitted(now_s)
    return now_s


def test_one_429_pauses_for_as_long_as_asked_and_a_little_more() -> None:
    """Never less than asked; at most a tenth more, at random."""
    throttle = make()
    throttle.refused(100.0, sent_at_s=99.9, retry_after_s=10.0)
    assert 110.0 <= throttle.not_before_s <= 111.0


def test_without_retry_after_it_pauses_for_a_second() -> None:
    """An upstream that says nothing."""
    throttle = make()
    throttle.refused(100.0, sent_at_s=99.9, retry_after_s=None)
    assert 101.0 <= throttle.not_before_s <= 101.1


def test_it_resumes_at_half_the_rate_that_led_to_it() -> None:
    """And the pace is kept: each admission moves the next one."""
    throttle = make()
    now_s = busy(throttle, per_s=20)
    assert throttle.refused(now_s, sent_at_s=now_s, retry_after_s=1.0)
    resume_s = throttle.not_before_s
    assert throttle.rate_per_s(resume_s) == pytest.approx(10, rel=0.1)
    throttle.admitted(resume_s)
    assert throttle.not_before_s == pytest.approx(resume_s + 0.1, rel=0.1)


def test_recovery_is_gradual_and_ends() -> None:
    """As much as before after ten seconds; no brake at all once the limits' own rate is reached."""
    throttle = make(full_rate_per_s=30.0)
    now_s = busy(throttle, per_s=20)
    throttle.refused(now_s, sent_at_s=now_s, retry_after_s=0.0)
    start_s = throttle.not_before_s
    rates = [throttle.rate_per_s(start_s + after_s) for after_s in (0, 5, 10)]
    assert rates == pytest.approx([10, 14.1, 20], rel=0.1)
    assert throttle.rate_per_s(start_s + 17) is None
    throttle.admitted(start_s + 17)
    assert throttle.not_before_s <= start_s + 17


def test_a_429_at_the_very_start_does_not_stall_for_minutes() -> None:
    """Two requests were sent and refused: that says little, and the limits' own rate is back in half a minute."""
    throttle = make(full_rate_per_s=50.0)
    throttle.admitted(100.0)
    throttle.admitted(100.0)
    throttle.refused(100.1, sent_at_s=100.0, retry_after_s=0.0)
    start_s = throttle.not_before_s
    assert throttle.rate_per_s(start_s) == pytest.approx(2.5)
    assert throttle.rate_per_s(start_s + 45) is None


def test_a_burst_of_429s_slows_once() -> None:
    """Those that were under way when the lane was slowed tell nothing new."""
    throttle = make()
    now_s = busy(throttle, per_s=20)
    slowed = [throttle.refused(now_s + 0.1, sent_at_s=now_s, retry_after_s=1.0) for _ in range(50)]
    assert slowed == [True] + [False] * 49
    assert throttle.rate_per_s(throttle.not_before_s) == pytest.approx(10, rel=0.1)


def test_a_429_after_the_pause_slows_again() -> None:
    """The half was still too much."""
    throttle = make()
    now_s = busy(throttle, per_s=20)
    throttle.refused(now_s, sent_at_s=now_s, retry_after_s=1.0)
    later_s = throttle.not_before_s + 1.0
    assert throttle.refused(later_s, sent_at_s=later_s - 0.1, retry_after_s=1.0)
    assert throttle.rate_per_s(throttle.not_before_s) == pytest.approx(5.4, rel=0.15)


def test_it_never_stops_for_good() -> None:
    """However often it is refused, and whatever is asked."""
    throttle = make()
    now_s = 0.0
    for _ in range(30):
        throttle.refused(now_s, sent_at_s=now_s, retry_after_s=1e6)
        assert throttle.not_before_s - now_s <= 330.0
        now_s = throttle.not_before_s
    rate = throttle.rate_per_s(now_s)
    assert rate is not None
    assert rate >= 2.5


def test_somebody_elses_use_of_the_key_holds_it_shortly() -> None:
    """Nothing left at the upstream although our own window has room."""
    spent = RateLimitHeaders(LimitState(100, 0, 55.0), LimitState(None, None, None))
    throttle = make()
    assert not throttle.observe(spent, 10.0, room=False)
    assert throttle.not_before_s == 0.0
    assert throttle.observe(spent, 10.0, room=True)
    assert throttle.not_before_s == 11.0
    left = RateLimitHeaders(LimitState(100, 1, 55.0), LimitState(None, 5, None))
    assert not throttle.observe(left, 10.0, room=True)

"""What upstreams say about their limits, and what they mean by it."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_client.dialects.limit_headers import LimitState, duration_s, rate_limits, retry_after_s

NOW_S = 1_700_000_000.0


@pytest.mark.parametrize(
    ("headers", "expected_s"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 2.5 "}, 2.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"retry-after": formatdate(NOW_S + 30, usegmt=True)}, 30.0),
        ({"retry-after": formatdate(NOW_S - 30, usegmt=True)}, 0.0),
        ({"retry-after": "Tue, 14 Nov 2023 23:13:50 +0100"}, 30.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e9"}, None),
        ({"retry-after": "a while"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "Tue, 99 Nov 2023 99:13:50 GMT"}, None),
        ({"retry-after": "Tue, 14 Nov 9999999 22:13:50 GMT"}, None),
    ],
)
def test_retry_after_in_all_its_forms(headers: dict[str, str], expected_s: float | None) -> None:
    """Seconds, milliseconds, an HTTP date; nonsense is as if it were not there."""
    assert retry_after_s(headers, wall_s=NOW_S) == expected_s


@given(st.text(max_size=40), st.text(max_size=20))
def test_no_retry_after_raises(text: str, milliseconds: str) -> None:
    """An upstream in trouble may send anything."""
    wait_s = retry_after_s({"retry-after": text, "retry-after-ms": milliseconds}, wall_s=NOW_S)
    assert wait_s is None or 0 <= wait_s <= 86_400


@pytest.mark.parametrize(
    ("text", "expected_s"),
    [
        ("6m0s", 360.0),
        ("1.5s", 1.5),
        ("20ms", 0.02),
        ("1h2m3s", 3723.0),
        ("12", 12.0),
        ("1m 3s", None),
        ("", None),
        ("s", None),
        ("400h", None),
        (None, None),
    ],
)
def test_durations_as_upstreams_write_them(text: str | None, expected_s: float | None) -> None:
    """OpenAI's form, bare seconds, and nonsense."""
    assert duration_s(text) == pytest.approx(expected_s)


def test_rate_limit_headers() -> None:
    """All six, some of them, nonsense, none."""
    headers = {
        "x-ratelimit-limit-requests": "3000",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "20ms",
        "x-ratelimit-remaining-tokens": "many",
    }
    limits = rate_limits(headers)
    assert limits is not None
    assert limits.requests == LimitState(3000, 0, 0.02)
    assert limits.tokens == LimitState(None, None, None)
    assert rate_limits({"content-type": "application/json"}) is None

"""What an upstream says about its limits in response headers. Pure parsing, forgiving of nonsense."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

# Nobody means more than a day: longer answers are nonsense, and would park a client for good.
_LONGEST_S = 86_400.0
# The longest that means anything is a date; what looks through a text may take the square of its length.
_LONGEST_TEXT = 100
# September 2001: a smaller number is no time since 1970.
_SOONEST_EPOCH_S = 1e9
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|d|h|m|s)")
_UNIT_S = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}


@dataclass(frozen=True, slots=True)
class LimitState:
    """One of the upstream's limits: how much a minute, what is left, and when it is full again."""

    limit: int | None
    remaining: int | None
    reset_s: float | None


@dataclass(frozen=True, slots=True)
class RateLimitHeaders:
    """`x-ratelimit-{limit,remaining,reset}-{requests,tokens}`."""

    requests: LimitState
    tokens: LimitState


def told_wall_s(headers: Mapping[str, str], *, wall_s: float) -> float:
    """What the time is to whoever answered: its dates are by its own clock, and ours may be wrong."""
    text = headers.get("date", "")
    try:
        return parsedate_to_datetime(text).timestamp() if 0 < len(text) <= _LONGEST_TEXT else wall_s
    except (ValueError, TypeError, IndexError, OverflowError, OSError):
        return wall_s


def retry_after_s(headers: Mapping[str, str], *, wall_s: float) -> float | None:
    """Seconds to wait, from `retry-after-ms` or `Retry-After` (seconds, `2s`, or an HTTP date, RFC 9110 10.2.3).

    None where neither is there or neither makes sense (negative, not a number, over a day).
    A date that has passed is 0.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return _sane(milliseconds / 1000)
    text = headers.get("retry-after")
    if text is None or len(text) > _LONGEST_TEXT:
        return None
    seconds = duration_s(text)
    if seconds is not None or _number(text) is not None:
        return seconds
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None
    try:
        return _sane(max(0.0, date.timestamp() - wall_s))
    except (OverflowError, ValueError, OSError):
        return None


def spent_limit_s(headers: Mapping[str, str], *, wall_s: float) -> float | None:
    """Seconds until what is spent is there again, as limit headers tell; None where none says that it is spent.

    OpenAI's `x-ratelimit-reset-…` for requests and tokens, a minute's and a day's; Anthropic's and Azure's names; the
    one `x-ratelimit-reset` of OpenRouter and others.
    """
    waits = []
    for name, left in headers.items():
        if "ratelimit" in name and "remaining" in name and _number(left) == 0:
            told = moment_s(headers.get(name.replace("remaining", "reset")), wall_s=wall_s)
            if told is not None:
                waits.append(told)
    return max(waits, default=None)


def moment_s(text: str | None, *, wall_s: float) -> float | None:
    """Seconds from now until `1m30s`, `6ms`, seconds, a date (ISO or HTTP), or a time since 1970 in s or ms."""
    if text is None or len(text) > _LONGEST_TEXT:
        return None
    number = _number(text)
    if number is not None and number > _SOONEST_EPOCH_S:
        at_s = number / 1000 if number > _SOONEST_EPOCH_S * 1000 else number
        return _sane(max(0.0, at_s - wall_s))
    seconds = duration_s(text)
    if seconds is not None:
        return seconds
    try:
        return _sane(max(0.0, datetime.fromisoformat(text.strip()).timestamp() - wall_s))
    except (ValueError, OverflowError):
        return retry_after_s({"retry-after": text}, wall_s=wall_s)


def rate_limits(headers: Mapping[str, str]) -> RateLimitHeaders | None:
    """Limits and what is left of them, as the headers of an answer say; None where they say nothing."""
    if "x-ratelimit-remaining-requests" not in headers and "x-ratelimit-remaining-tokens" not in headers:
        return None
    return RateLimitHeaders(_limit_state(headers, "requests"), _limit_state(headers, "tokens"))


def duration_s(text: str | None) -> float | None:
    """Seconds of "6m0s", "1.5s", "250ms", "1h2m" or a bare number of seconds."""
    if text is None or len(text) > _LONGEST_TEXT:
        return None
    seconds = _number(text)
    if seconds is not None:
        return _sane(seconds)
    stripped = text.strip()
    parts = _DURATION.findall(stripped)
    if not parts or "".join(number + unit for number, unit in parts) != stripped:
        return None
    return _sane(sum(float(number) * _UNIT_S[unit] for number, unit in parts))


def _limit_state(headers: Mapping[str, str], kind: str) -> LimitState:
    return LimitState(
        _count(headers.get(f"x-ratelimit-limit-{kind}")),
        _count(headers.get(f"x-ratelimit-remaining-{kind}")),
        duration_s(headers.get(f"x-ratelimit-reset-{kind}")),
    )


def _count(text: str | None) -> int | None:
    number = _number(text)
    return int(number) if number is not None and 0 <= number < 1e12 else None


def _number(text: str | None) -> float | None:
    if text is None or len(text) > _LONGEST_TEXT:
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _sane(seconds: float) -> float | None:
    return seconds if 0 <= seconds <= _LONGEST_S else None

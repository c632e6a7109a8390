"""Days and months of a budget, in its own time zone."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ai_client.ledger.periods import Calendar

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Pacific/Apia",
    "America/Santiago",
    "Asia/Beirut",
]


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_a_day_ends_at_midnight_of_its_zone() -> None:
    """23:30 UTC on the 24th is the 25th in Berlin."""
    period = Calendar("Europe/Berlin").period(at("2026-11-24T23:30:00+00:00"))
    assert (period.day, period.month) == ("2026-11-25", "2026-11")
    assert period.starts_at_s == at("2026-11-24T23:00:00+00:00")
    assert period.day_ends_at_s == at("2026-11-25T23:00:00+00:00")
    assert period.month_ends_at_s == at("2026-11-30T23:00:00+00:00")


@pytest.mark.parametrize(
    ("moment", "hours"), [("2026-03-29T12:00:00+02:00", 23), ("2026-10-25T12:00:00+01:00", 25)]
)
def test_days_of_a_clock_change_are_shorter_or_longer(moment: str, hours: int) -> None:
    """Berlin's summer time begins and ends."""
    period = Calendar("Europe/Berlin").period(at(moment))
    assert period.day_ends_at_s - period.starts_at_s == hours * 3_600


def test_a_day_that_has_no_midnight_begins_with_its_first_moment() -> None:
    """In Beirut the clocks go from 0:00 to 1:00."""
    period = Calendar("Asia/Beirut").period(at("2026-03-29T12:00:00+03:00"))
    assert period.starts_at_s == at("2026-03-28T22:00:00+00:00")
    assert period.day_ends_at_s - period.starts_at_s == 23 * 3_600


@pytest.mark.parametrize("zone", ZONES)
@given(st.floats(min_value=0, max_value=4e9), st.floats(min_value=-1e5, max_value=1e5))
@example(moment_s=102363200.0, step_s=100000.0)  # a month that begins without a midnight
def test_every_moment_lies_in_its_period_whatever_was_asked_before(
    zone: str, moment_s: float, step_s: float
) -> None:
    """Bounds and names agree, and the answer that is kept is never used beyond them."""
    calendar = Calendar(zone)
    for asked_s in (moment_s, max(0.0, moment_s + step_s)):
        period = calendar.period(asked_s)
        local = datetime.fromtimestamp(asked_s, UTC if zone == "UTC" else ZoneInfo(zone))
        assert period.day == local.date().isoformat()
        assert period.starts_at_s <= asked_s < period.day_ends_at_s <= period.month_ends_at_s
        before_end = datetime.fromtimestamp(period.month_ends_at_s - 1, local.tzinfo)
        assert before_end.date().isoformat()[:7] == period.month

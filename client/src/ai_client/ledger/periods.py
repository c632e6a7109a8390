"""Days and months of a budget, in the time zone it is kept in."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo


@dataclass(frozen=True, slots=True)
class Period:
    """One day: `day` is `2026-11-24`, `month` is `2026-11`. Ends are seconds since the epoch, exclusive."""

    day: str
    month: str
    starts_at_s: float
    day_ends_at_s: float
    month_ends_at_s: float


class Calendar:
    """Tells the period of a moment. Asked for every request, so it keeps the last answer."""

    def __init__(self, timezone: str) -> None:
        """`timezone` is a name of the time zone database; UTC needs no database."""
        self._zone: tzinfo = UTC if timezone == "UTC" else ZoneInfo(timezone)
        self._last = self._compute(0.0)

    def period(self, at_s: float) -> Period:
        """The period that holds `at_s` (seconds since the epoch)."""
        last = self._last
        if not last.starts_at_s <= at_s < last.day_ends_at_s:
            last = self._last = self._compute(at_s)
        return last

    def _compute(self, at_s: float) -> Period:
        today = datetime.fromtimestamp(at_s, self._zone).date()
        next_month = (today.replace(day=1) + timedelta(days=32)).replace(day=1)
        return Period(
            day=today.isoformat(),
            month=today.isoformat()[:7],
            starts_at_s=self._midnight(today),
            day_ends_at_s=self._midnight(today + timedelta(days=1)),
            month_ends_at_s=self._midnight(next_month),
        )

    def _midnight(self, day: date) -> float:
        # Some zones skip midnight when their summer time begins; the first moment of the day counts then.
        return datetime.combine(day, time.min, self._zone).timestamp()

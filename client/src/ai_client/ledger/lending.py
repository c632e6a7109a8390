"""What a host asks of budgets that it shares, and what it gives back: a pure state machine over what its ledger has.

It wants what it uses, and enough ahead for a minute of what it spends; a little where it spends nothing. What lies idle
goes back: where others want more than there is, all of it but a minute's. The next period is asked for a minute before
it begins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from ai_client.ledger.allowance import BudgetKey, Standing
from ai_client.ledger.budgets import Budget
from ai_client.ledger.periods import Calendar
from ai_client.ledger.totals import period_name

AHEAD_S: Final = 60.0
#: Of a budget, what a host has ahead without spending: one part in so many.
_IDLE_PART: Final = 256
#: Idle amounts of up to so many times what is wanted ahead stay, where nobody wants them.
_SLACK: Final = 4
_DAY_S: Final = 86_400.0
_RATE_OVER_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a host would like to hold of a budget, its limit as declared here, and what it keeps (None: all)."""

    limit: int
    want: int
    keep: int | None


@dataclass(slots=True)
class _Pace:
    """How fast a budget is used here, in nano-dollars a second."""

    at_s: float
    used: int
    rate: float = 0.0
    #: The largest refused lately, and when; gone once it was granted.
    refused: int = 0
    refused_at_s: float = 0.0
    is_hungry: bool = False
    free: int = 0

    def look(self, used: int, now_s: float) -> None:
        """Takes what is used now. Falls slowly, rises at once."""
        passed_s = now_s - self.at_s
        if passed_s <= 0:
            return
        now_rate = max(0, used - self.used) / passed_s
        kept = max(0.0, 1 - passed_s / _RATE_OVER_S)
        self.rate = max(now_rate, self.rate * kept + now_rate * (1 - kept))
        self.at_s, self.used = now_s, used


@dataclass(slots=True)
class Lending:
    """`budgets` are all that are shared."""

    budgets: Sequence[Budget]
    timezone: str = "UTC"
    _paces: dict[BudgetKey, _Pace] = field(default_factory=dict)
    _calendar: Calendar = field(init=False, repr=False)
    #: The same, asked for moments ahead: each keeps its last answer.
    _ahead: Calendar = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.declare(self.budgets, self.timezone)

    def declare(self, budgets: Sequence[Budget], timezone: str) -> None:
        """These from now on."""
        self.budgets, self.timezone = budgets, timezone
        self._calendar, self._ahead = Calendar(timezone), Calendar(timezone)

    def keys(self, wall_s: float) -> dict[BudgetKey, Budget]:
        """The budgets of now, and those of the next period where that is near."""
        days = (self.today(wall_s), self._ahead.period(wall_s + AHEAD_S).day)
        return {(budget.scope, period_name(budget, day)): budget for day in days for budget in self.budgets}

    def today(self, wall_s: float) -> str:
        """The day of now."""
        return self._calendar.period(wall_s).day

    def since(self, wall_s: float) -> tuple[str, str]:
        """The oldest day and month that a host may still spend in, whose clock or zone is another."""
        day, month = (datetime.fromtimestamp(wall_s - days * _DAY_S, UTC).date() for days in (3, 32))
        return day.isoformat(), month.isoformat()[: len("2026-11")]

    def plan(
        self,
        standings: Mapping[BudgetKey, Standing],
        refused: Mapping[BudgetKey, int],
        *,
        now_s: float,
        wall_s: float,
    ) -> dict[BudgetKey, Wanted]:
        """For each budget of now. `now_s` is of a clock that never jumps."""
        keys = self.keys(wall_s)
        self._paces = {key: pace for key, pace in self._paces.items() if key in keys}
        return {
            key: self._plan(budget, standings[key], refused.get(key, 0), now_s)
            for key, budget in keys.items()
            if key in standings
        }

    def answered(self, key: BudgetKey, *, free: int, is_hungry: bool, was_met: bool) -> None:
        """What the books said of one; `was_met`: all that was wanted was granted."""
        pace = self._paces.get(key)
        if pace is not None:
            pace.free, pace.is_hungry = free, is_hungry
            if was_met:
                pace.refused = 0

    def _plan(self, budget: Budget, standing: Standing, refused: int, now_s: float) -> Wanted:
        pace = self._paces.setdefault(standing.key, _Pace(now_s, standing.used))
        pace.look(standing.used, now_s)
        if refused:
            pace.refused, pace.refused_at_s = max(pace.refused, refused), now_s
        elif now_s - pace.refused_at_s > AHEAD_S:
            pace.refused = 0
        idle = 0 if pace.is_hungry or pace.free < 0 else max(1, budget.limit_nusd // _IDLE_PART)
        ahead = max(idle, int(pace.rate * AHEAD_S), 2 * pace.refused)
        want = min(budget.limit_nusd, standing.used + ahead)
        over = standing.held - want
        if pace.free < 0:
            # More is out than the limit that rules now: whatever lies idle goes back.
            return Wanted(budget.limit_nusd, want, max(standing.used, standing.held + pace.free))
        if over > (0 if pace.is_hungry else _SLACK * ahead):
            return Wanted(budget.limit_nusd, want, want)
        return Wanted(budget.limit_nusd, want, None)

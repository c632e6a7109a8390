"""A host's part in budgets that hosts share: asks the engine for more and gives back, beside the leases' calls."""

from __future__ import annotations

import asyncio
import logging
import secrets
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ai_client.configure.assembly import LEDGER_NAME
from ai_client.configure.coordination import account_of, host_of
from ai_client.contract.events import BudgetAlert
from ai_client.coordination.budget_protocol import NO_LIMIT, BudgetAnswer, BudgetRequest, BudgetTerms, Wish
from ai_client.coordination.budget_seat import BudgetSeat, ToWrite
from ai_client.coordination.budget_wire import BudgetKeys
from ai_client.coordination.endpoint import EngineError
from ai_client.ledger.alerts import Alert, SharedAlerts, mark_of, scope_name
from ai_client.ledger.allowance import AllowanceFile, BudgetKey, Escrow, OnFile, Standing
from ai_client.ledger.budgets import BudgetPlan
from ai_client.ledger.lending import Lending, Wanted
from ai_client.ledger.prices import NANO_PER_DOLLAR
from ai_client.ledger.schema import LedgerTooNewError
from ai_client.platform import json_log
from ai_client.settings import Settings

if TYPE_CHECKING:
    from ai_client.coordination.link import EngineLink

_NOT_ASKED = "the coordination engine was not asked yet"
_FOUNDING = "the coordination engine's books are new; nothing is granted for 20 s, until other hosts had time to report"
_ALONE = "no other host was told of this one yet; of each that is gone for good, run: ai-client fleet --forget HOST"
_log = logging.getLogger(__name__)
_T = TypeVar("_T")


def _boot_ms() -> int:
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * 1000)


@dataclass(frozen=True, slots=True)
class SharedBudget:
    """One shared budget of now, for people; nano-dollars. `free` is what no host holds."""

    scope: str
    period: str
    limit: int
    held: int
    used: int
    free: int

    def as_json(self) -> dict[str, str | float]:
        """For the status page, in dollars."""
        return {
            "scope": self.scope,
            "period": self.period,
            "limit_usd": self.limit / NANO_PER_DOLLAR,
            "allowed_usd": self.held / NANO_PER_DOLLAR,
            "left_usd": (self.held - self.used) / NANO_PER_DOLLAR,
            "free_usd": self.free / NANO_PER_DOLLAR,
        }


class Borrower:
    """Which calls a host makes, as a pure state machine over what its file has; `BudgetRider` does as it says."""

    def __init__(
        self,
        host: str,
        lending: Lending,
        *,
        instance: str,
        terms: BudgetTerms,
        alert_shares: Sequence[float] = (),
    ) -> None:
        self.host = host
        self.lending = lending
        self.alerts = SharedAlerts(alert_shares)
        self.terms = terms
        self.seat: BudgetSeat | None = None
        self.plans: dict[BudgetKey, Wanted] = {}
        self._asked: tuple[BudgetRequest, dict[BudgetKey, Standing]] | None = None
        self._instance = instance
        self._want_ms = terms.want_ms
        self._next_ms = 0

    def due_in_ms(self, now_ms: int, *, is_refusing: bool) -> int:
        """Until the next call."""
        return self._next_ms - (self.terms.call_ms - self._want_ms if is_refusing else 0) - now_ms

    def plan(
        self, found: OnFile, refused: Mapping[BudgetKey, int], *, now_ms: int, wall_s: float
    ) -> dict[BudgetKey, int]:
        """What is to be kept of budgets of which something is to be given back, before the call."""
        if self.seat is None or self.seat.ledger != found.ledger:
            self.seat = BudgetSeat(
                self.host,
                ledger=found.ledger,
                instance=self._instance,
                roster=found.roster,
                is_settled=found.is_settled,
                terms=self.terms,
            )
        self.plans = self.lending.plan(found.standings, refused, now_s=now_ms / 1000, wall_s=wall_s)
        self.alerts.keep(self.plans)
        return {
            key: plan.keep
            for key, plan in self.plans.items()
            if plan.keep is not None and plan.keep < found.standings[key].held
        }

    def request(self, found: OnFile, *, now_ms: int) -> BudgetRequest:
        """The call, by what the file has now."""
        assert self.seat is not None  # noqa: S101 - for the type checker; `plan` comes first
        told = {
            key: each for key, each in found.standings.items() if key in self.plans or self.seat.is_to_report
        }
        wishes = tuple(self._wish(each) for each in told.values())
        request = self.seat.begin(now_ms, wishes)
        self._asked = (request, told)
        # However it ends, the next one waits a little.
        self._next_ms = now_ms + self.terms.call_ms
        return request

    def answered(
        self, answer: BudgetAnswer, *, now_ms: int
    ) -> tuple[dict[BudgetKey, tuple[int, int]], ToWrite]:
        """What is to be written before anything of it counts."""
        assert self.seat is not None and self._asked is not None  # noqa: S101, PT018 - for the type checker
        request, told = self._asked
        is_met, is_new = True, answer.epoch != request.epoch
        grants = {}
        for (key, before), wish, holding in zip(told.items(), request.wishes, answer.holdings, strict=True):
            was_met = holding.granted - holding.returned >= wish.want
            is_met = is_met and was_met
            self.lending.answered(key, free=holding.free, is_hungry=holding.is_hungry, was_met=was_met)
            if (holding.granted, holding.returned) != (before.granted, before.returned):
                grants[key] = (holding.granted, holding.returned)
        done = self.seat.end(answer, now_ms)
        if is_met or is_new:
            self._want_ms = self.terms.want_ms
        else:
            self._want_ms = min(2 * self._want_ms, self.terms.call_ms)
        if is_new or not is_met or self.seat.is_waiting:
            self._next_ms = now_ms + self._want_ms
        return grants, done

    def to_tell(self, answer: BudgetAnswer) -> list[Alert]:
        """Alerts of which this host is the one that tells them. To be asked once of each answer."""
        assert self._asked is not None  # noqa: S101 - for the type checker
        found = []
        for wish, holding in zip(self._asked[0].wishes, answer.holdings, strict=True):
            asked = self.alerts.due(wish.scope, wish.period) if wish.mark else None
            self.alerts.heard(wish.scope, wish.period, spent=holding.spent, limit=holding.limit)
            if asked is not None:
                self.alerts.settled(asked)
                if holding.teller == self.host:
                    found.append(replace(asked, spent_nusd=holding.spent))
        return found

    def failed(self, now_ms: int) -> None:
        """No answer came."""
        self._next_ms = now_ms + self.terms.call_ms

    def trouble(self) -> str | None:
        """Why there is no more to be had, where that is not for want of money."""
        if self.seat is None or self.seat.answer is None:
            return _NOT_ASKED
        if self.seat.answer.is_recovering:
            missing = self.seat.answer.missing
            if missing == 0:
                return _FOUNDING
            hosts = "1 host is" if missing == 1 else f"{missing} hosts are"
            return f"the coordination engine's books are new, and {hosts} to say first what was granted there"
        return self._smaller() if self.seat.answer.is_settled else _ALONE

    def _smaller(self) -> str | None:
        """Whether another host declares less of a budget than this one, which then rules."""
        if self._asked is None or self.seat is None or self.seat.answer is None:
            return None
        for wish, holding in zip(self._asked[0].wishes, self.seat.answer.holdings, strict=False):
            if NO_LIMIT < holding.limit < wish.limit:
                limits = f"{holding.limit / NANO_PER_DOLLAR:g}, this one ${wish.limit / NANO_PER_DOLLAR:g}"
                remedy = "the smaller rules until its period ends; declare the same on all hosts"
                return f"another host declares ${limits} as the budget of {scope_name(wish.scope)}: {remedy}"
        return None

    def _wish(self, each: Standing) -> Wish:
        plan = self.plans.get(each.key)
        limit, want = (NO_LIMIT, 0) if plan is None else (plan.limit, plan.want)
        mark = "" if plan is None else mark_of(self.alerts.due(each.scope, each.period))
        return Wish(
            each.scope, each.period, limit, each.granted, each.returned, each.used, want, each.spent, mark
        )


class BudgetRider:
    """See the module. Rides on the coordinator's connection, in its task; files are waited for in a thread."""

    def __init__(
        self,
        borrower: Borrower,
        file: AllowanceFile,
        *,
        keys: BudgetKeys,
        escrow: Escrow,
        tell: Callable[[BudgetAlert], None],
        boot_ms: Callable[[], int] = _boot_ms,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._borrower = borrower
        self._tell = tell
        self._file = file
        self._keys = keys
        self._escrow = escrow
        self._boot_ms = boot_ms
        self._wall = wall
        self._thread: ThreadPoolExecutor | None = None
        self._standings: Mapping[BudgetKey, Standing] = {}
        self._free: dict[BudgetKey, tuple[int, int]] = {}
        escrow.trouble = _NOT_ASKED

    def declare(self, plan: BudgetPlan) -> None:
        """These budgets, from the next call on."""
        self._borrower.lending.declare(plan.budgets, plan.timezone)
        self._borrower.alerts.shares = plan.alert_shares

    def is_due(self) -> bool:
        """Whether there is something to ask, or it is time."""
        if not self._borrower.lending.budgets:
            return False
        return self._borrower.due_in_ms(self._boot_ms(), is_refusing=bool(self._escrow.refused)) <= 0

    async def ride(self, link: EngineLink) -> None:
        """One call, and what it takes before and after it."""
        try:
            await self._ride(link)
            trouble = self._borrower.trouble()
        except EngineError as exc:
            trouble = f"{exc}; this host has only what it was granted before"
        except (OSError, sqlite3.Error, LedgerTooNewError) as exc:
            trouble = f"the ledger can't be written ({type(exc).__name__}: {exc})"
        else:
            self._note(trouble)
            return
        self._borrower.failed(self._boot_ms())
        self._note(trouble)

    async def close(self) -> None:
        """Lets go of the file. It may ride again afterwards."""
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.get_running_loop().run_in_executor(thread, self._file.close)
            thread.shutdown(wait=False)

    def budgets(self) -> tuple[SharedBudget, ...]:
        """How they stood at the last call."""
        return tuple(
            SharedBudget(
                "all" if each.scope == "*" else each.scope,
                "day" if len(each.period) > len("2026-11") else "month",
                limit=self._free[key][1],
                held=each.held,
                used=each.used,
                free=self._free[key][0],
            )
            for key, each in self._standings.items()
            if key in self._free and key in self._borrower.lending.keys(self._wall())
        )

    async def _ride(self, link: EngineLink) -> None:
        borrower, wall_s = self._borrower, self._wall()
        keys, since = list(borrower.lending.keys(wall_s)), borrower.lending.since(wall_s)
        look = partial(self._file.look, keys, since=since)
        found = await self._in_thread(look)
        refused = self._escrow.take_refusals()
        keep = borrower.plan(found, refused, now_ms=self._boot_ms(), wall_s=wall_s)
        if keep:
            await self._in_thread(partial(self._file.give_back, keep))
            found = await self._in_thread(look)
        request = borrower.request(found, now_ms=self._boot_ms())
        answer = await link.budgets(self._keys, request)
        grants, done = borrower.answered(answer, now_ms=self._boot_ms())
        if grants or done.roster is not None or done.is_settled != found.is_settled:
            take = partial(
                self._file.take,
                grants,
                ledger=found.ledger,
                roster=done.roster,
                is_settled=done.is_settled,
            )
            await self._in_thread(take)
        assert borrower.seat is not None  # noqa: S101 - for the type checker
        borrower.seat.written(done)
        self._stand(found, grants, request, answer)
        if alerts := borrower.to_tell(answer):
            for alert in await self._in_thread(partial(self._file.are_first, alerts, wall_s)):
                self._tell(alert.as_event(wall_s, by_all_hosts=True))

    def _stand(
        self,
        found: OnFile,
        grants: Mapping[BudgetKey, tuple[int, int]],
        request: BudgetRequest,
        answer: BudgetAnswer,
    ) -> None:
        self._standings = {
            key: replace(each, granted=grants[key][0], returned=grants[key][1]) if key in grants else each
            for key, each in found.standings.items()
        }
        for wish, holding in zip(request.wishes, answer.holdings, strict=True):
            self._free[wish.scope, wish.period] = (holding.free, holding.limit)

    def _note(self, trouble: str | None) -> None:
        before, self._escrow.trouble = self._escrow.trouble, trouble
        if trouble is not None and trouble != before:
            _log.warning("budget_sharing_waits", extra=json_log.fields({"reason": trouble}))
        elif trouble is None and before is not None:
            _log.info("budget_sharing_goes_on")

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ai-client-budgets")
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def escrow_of(settings: Settings) -> Escrow:
    """For the ledger: who shares its budgets."""
    return Escrow(account_of(settings) if settings.budget.shared else "")


def plan_of(settings: Settings) -> BudgetPlan:
    """What is declared."""
    return BudgetPlan.from_settings(settings.budget, settings.tenants)


def rider_of(
    settings: Settings, state: Path, escrow: Escrow, *, tell: Callable[[BudgetAlert], None]
) -> BudgetRider | None:
    """Who keeps this host's part in shared budgets, and tells of their alerts; None where there are none."""
    if not escrow.account:
        return None
    plan = plan_of(settings)
    lending = Lending(plan.budgets, plan.timezone)
    borrower = Borrower(
        host_of(settings),
        lending,
        instance=secrets.token_hex(8),
        terms=BudgetTerms(),
        alert_shares=plan.alert_shares,
    )
    return BudgetRider(
        borrower,
        AllowanceFile(state / LEDGER_NAME, account=escrow.account),
        keys=BudgetKeys(escrow.account),
        escrow=escrow,
        tell=tell,
    )

"""Whatever happens in whatever order: the ledger's sums are those of a plain model, and no budget is overspent."""

import asyncio
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from ai_client.contract.request import Usage
from ai_client.contract.stores import EntryId
from ai_client.errors import BudgetExceeded
from ai_client.ledger.budgets import ALL_TENANTS, Budget, BudgetPlan, Span
from ai_client.ledger.ledger import SpendLedger
from ai_client.ledger.prices import Price, Prices
from ai_client.platform.clock import ManualClock
from tests.client.ledger.ledger_waiting import granted

pytestmark = pytest.mark.slow

NUSD = 10**6
PRICES = Prices({"m": Price(NUSD * 10**6, NUSD * 10**6, NUSD * 10**6)})
DAILY, MONTHLY, TENANT_DAILY = 1_000 * NUSD, 2_500 * NUSD, 600 * NUSD
PLAN = BudgetPlan(
    budgets=(
        Budget(ALL_TENANTS, Span.DAY, DAILY),
        Budget(ALL_TENANTS, Span.MONTH, MONTHLY),
        Budget("a", Span.DAY, TENANT_DAILY),
    )
)
TENANTS = st.sampled_from(["a", "b"])
TOKENS = st.integers(0, 300)
Held = tuple[int, EntryId, str, str, int]


class LedgerMachine(RuleBasedStateMachine):
    """Two processes' ledgers on one file, restarts that leave entries open, days that go by."""

    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "ledger.sqlite"
        self.clock = ManualClock(wall_s=1_795_500_000.0)
        self.loop = asyncio.new_event_loop()
        self.ledgers = [self.new_ledger(), self.new_ledger()]
        self.lives = [0, 0]
        # The model: what is held and spent by day and tenant.
        self.model_held: dict[tuple[str, str], int] = {}
        self.model_spent: dict[tuple[str, str], int] = {}
        self.open: dict[tuple[int, int, EntryId], tuple[str, str, int]] = {}

    def new_ledger(self) -> SpendLedger:
        return SpendLedger(self.path, prices=PRICES, plan=PLAN, clock=self.clock)

    @property
    def day(self) -> str:
        return f"2026-11-{24 + int((self.clock.wall() - 1_795_478_400) // 86_400)}"

    def sums(self, tenant: str | None, day: str | None) -> int:
        """What is held and spent of a day (or of all days) by a tenant (or by all)."""
        return sum(
            amount
            for amounts in (self.model_held, self.model_spent)
            for (of_day, of_tenant), amount in amounts.items()
            if day in (None, of_day) and tenant in (None, of_tenant)
        )

    @rule(target=held, which=st.integers(0, 1), tenant=TENANTS, tokens=TOKENS)
    def reserve(self, which: int, tenant: str, tokens: int) -> Any:
        """Granted exactly where all budgets allow it."""
        asked = tokens * NUSD
        allowed = (
            self.sums(None, self.day) + asked <= DAILY
            and self.sums(None, None) + asked <= MONTHLY
            and (tenant != "a" or self.sums("a", self.day) + asked <= TENANT_DAILY)
        )
        # What another process has ended is seen once it is committed.
        for ledger in self.ledgers:
            ledger.flush()
        request = self.ledgers[which].reserve(
            request_id="r", model="m", tenant=tenant, upper=Usage(0, tokens), tags={}
        )
        try:
            entry = self.loop.run_until_complete(granted(request, self.ledgers[which]))
        except BudgetExceeded:
            assert not allowed
            return multiple()
        assert allowed
        key = (self.day, tenant)
        self.model_held[key] = self.model_held.get(key, 0) + asked
        handle = (which, self.lives[which], entry)
        self.open[handle] = (*key, asked)
        return handle

    def is_current(self, handle: tuple[int, int, EntryId]) -> bool:
        return handle[1] == self.lives[handle[0]] and handle in self.open

    def book(self, handle: tuple[int, int, EntryId], nusd: int) -> None:
        day, tenant, asked = self.open.pop(handle)
        self.model_held[day, tenant] -= asked
        self.model_spent[day, tenant] = self.model_spent.get((day, tenant), 0) + nusd

    @rule(handle=consumes(held), part=st.floats(0, 1))
    def settle(self, handle: tuple[int, int, EntryId], part: float) -> None:
        if self.is_current(handle):
            tokens = int(self.open[handle][2] // NUSD * part)
            assert self.ledgers[handle[0]].settle(handle[2], Usage(0, tokens)) == tokens * NUSD / 1e9
            self.book(handle, tokens * NUSD)

    @rule(handle=consumes(held))
    def release(self, handle: tuple[int, int, EntryId]) -> None:
        if self.is_current(handle):
            self.ledgers[handle[0]].release(handle[2])
            self.book(handle, 0)

    @rule(handle=consumes(held))
    def lose(self, handle: tuple[int, int, EntryId]) -> None:
        if self.is_current(handle):
            self.ledgers[handle[0]].billed_unknown(handle[2])
            self.book(handle, self.open[handle][2])

    @rule(which=st.integers(0, 1))
    def restart(self, which: int) -> None:
        """What is open may have been sent: it is booked whole."""
        self.ledgers[which].close()
        self.ledgers[which] = self.new_ledger()
        for handle in [each for each in self.open if each[0] == which]:
            self.book(handle, self.open[handle][2])
        self.lives[which] += 1

    @rule()
    def let_a_day_pass(self) -> None:
        if self.day < "2026-11-29":
            self.clock.advance(86_400)

    @invariant()
    def the_file_is_as_the_model(self) -> None:
        for ledger in self.ledgers:
            ledger.flush()
        db = sqlite3.connect(self.path)
        try:
            days = db.execute(
                "SELECT period, tenant, held_nusd, spent_nusd FROM total WHERE length(period) = 10"
            )
            rows = {(day, tenant): (held, spent) for day, tenant, held, spent in days if held or spent}
            month = db.execute("SELECT sum(held_nusd), sum(spent_nusd) FROM total WHERE period = '2026-11'")
            held, spent = month.fetchone()
            assert (held or 0, spent or 0) == (sum(self.model_held.values()), sum(self.model_spent.values()))
        finally:
            db.close()
        keys = set(self.model_held) | set(self.model_spent)
        model = {key: (self.model_held.get(key, 0), self.model_spent.get(key, 0)) for key in keys}
        assert rows == {key: amounts for key, amounts in model.items() if any(amounts)}
        assert all(self.sums(None, day) <= DAILY for day, _ in model)
        assert self.sums(None, None) <= MONTHLY

    def teardown(self) -> None:
        for ledger in self.ledgers:
            ledger.close()
        self.loop.close()
        self.folder.cleanup()


LedgerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLedger = LedgerMachine.TestCase

"""What a host may use of budgets that it shares: what its ledger's file says, and never more."""

from collections.abc import Iterator

import pytest

from ai_client.contract.request import Usage
from ai_client.errors import BudgetExceeded
from ai_client.ledger.alerts import Alert
from ai_client.ledger.allowance import AllowanceFile, BudgetKey, Escrow, Standing
from ai_client.ledger.budgets import ALL_TENANTS, Budget, BudgetPlan, Span
from ai_client.ledger.ledger import SpendLedger
from ai_client.ledger.lending import Lending
from ai_client.ledger.prices import NANO_PER_DOLLAR
from tests.client.ledger.ledger_stage import NOV_24, PRICES, Stage, reserve

_SINCE = ("2026-11-21", "2026-10")
_TODAY: BudgetKey = (ALL_TENANTS, "2026-11-24")
_BUDGET = Budget(ALL_TENANTS, Span.DAY, 10 * NANO_PER_DOLLAR)
_PLAN = BudgetPlan((_BUDGET,), shared_by="account")


def dollars(amount: float) -> int:
    return int(amount * NANO_PER_DOLLAR)


@pytest.fixture
def allowance(stage: Stage) -> Iterator[AllowanceFile]:
    file = AllowanceFile(stage.path, account="account")
    yield file
    file.close()


def _ledger(stage: Stage, escrow: Escrow) -> SpendLedger:
    made = SpendLedger(stage.path, prices=PRICES, plan=_PLAN, clock=stage.clock, escrow=escrow)
    stage.made.append(made)
    return made


def _grant(file: AllowanceFile, granted: float, returned: float = 0) -> None:
    name = file.look([], since=_SINCE).ledger
    grants = {_TODAY: (dollars(granted), dollars(returned))}
    file.take(grants, ledger=name, roster=None, is_settled=False)


def _standing(file: AllowanceFile) -> Standing:
    return file.look([_TODAY], since=_SINCE).standings[_TODAY]


async def test_a_host_spends_what_it_was_granted_and_no_more(stage: Stage, allowance: AllowanceFile) -> None:
    """A grant counts as soon as it is in the file; the error says what this host has, and why there is no more."""
    escrow = Escrow("account", trouble="the engine sleeps")
    ledger = _ledger(stage, escrow)
    with pytest.raises(BudgetExceeded, match="the engine sleeps") as caught:
        await reserve(ledger, 1)
    assert (caught.value.limit_usd, caught.value.allowed_usd) == (10.0, 0.0)
    assert escrow.take_refusals() == {_TODAY: dollars(1)}
    _grant(allowance, 3)
    await reserve(ledger, 3)
    with pytest.raises(BudgetExceeded):
        await reserve(ledger, 1)
    _grant(allowance, 50)
    await reserve(ledger, 7)
    with pytest.raises(BudgetExceeded) as caught:
        await reserve(ledger, 1)
    assert caught.value.allowed_usd is None, "its own limit holds, too"


async def test_of_a_shared_budget_the_ledger_alone_tells_nothing(
    stage: Stage, allowance: AllowanceFile
) -> None:
    """What all hosts have spent it does not know; who does tells it once, of all processes on its file."""
    ledger = _ledger(stage, Escrow("account"))
    _grant(allowance, 10)
    ledger.settle(await reserve(ledger, 9), Usage(0, 9_000))
    ledger.flush()
    assert _standing(allowance).spent == dollars(9)
    alert = Alert(_BUDGET, _TODAY[1], dollars(9), 0.8)
    assert allowance.are_first([alert], 0.0) == [alert]
    another = AllowanceFile(stage.path, account="account")
    assert another.are_first([alert], 0.0) == []
    another.close()


async def test_what_is_in_use_is_never_given_back(stage: Stage, allowance: AllowanceFile) -> None:
    ledger = _ledger(stage, Escrow("account"))
    _grant(allowance, 8)
    await reserve(ledger, 5)
    allowance.give_back({_TODAY: dollars(2)})
    assert _standing(allowance).returned == dollars(3)
    with pytest.raises(BudgetExceeded):
        await reserve(ledger, 1)


def test_counters_only_grow(allowance: AllowanceFile) -> None:
    """An answer that comes late, or twice, changes nothing."""
    allowance.look([_TODAY], since=_SINCE)
    _grant(allowance, 8, 1)
    _grant(allowance, 5)
    standing = _standing(allowance)
    assert (standing.granted, standing.returned) == (dollars(8), dollars(1))


async def test_what_was_spent_before_it_was_shared_counts_as_granted(
    stage: Stage, allowance: AllowanceFile
) -> None:
    ledger = SpendLedger(stage.path, prices=PRICES, clock=stage.clock)
    ledger.settle(await reserve(ledger, 4), Usage(0, 4_000))
    ledger.close()
    assert _standing(allowance).granted == dollars(4)


def test_a_file_has_a_name_and_knows_its_fellows(stage: Stage, allowance: AllowanceFile) -> None:
    """Also after a restart; other accounts have others."""
    name = allowance.look([], since=_SINCE).ledger
    allowance.take({}, ledger=name, roster=("b", "a"), is_settled=True)
    allowance.close()
    again = AllowanceFile(stage.path, account="account").look([], since=_SINCE)
    assert (again.ledger, again.roster, again.is_settled) == (name, ("a", "b"), True)
    other = AllowanceFile(stage.path, account="other").look([_TODAY], since=_SINCE)
    assert (other.ledger, other.roster, other.is_settled) == (name, (), False)


def test_a_file_that_was_replaced_is_another_ledger(stage: Stage, allowance: AllowanceFile) -> None:
    name = allowance.look([], since=_SINCE).ledger
    stage.path.unlink()
    allowance.take({_TODAY: (5, 0)}, ledger=name, roster=("a",), is_settled=True)
    found = allowance.look([_TODAY], since=_SINCE)
    assert found.ledger != name
    assert (found.standings[_TODAY].granted, found.roster, found.is_settled) == (0, (), False)


def test_a_host_wants_a_minute_ahead_of_what_it_spends_and_gives_back_what_lies_idle() -> None:
    lending = Lending((_BUDGET,))

    def plan(held: int, used: int, now_s: float) -> tuple[int, int | None]:
        standing = Standing(*_TODAY, granted=held, returned=0, used=used, spent=used)
        made = lending.plan({_TODAY: standing}, {}, now_s=now_s, wall_s=NOV_24)[_TODAY]
        return made.want, made.keep

    idle = _BUDGET.limit_nusd // 256
    assert plan(0, 0, 0.0) == (idle, None)
    want, keep = plan(dollars(1), dollars(0.05), 5.0)
    assert (want, keep) == (dollars(0.05) + dollars(0.6), None)
    lending.answered(_TODAY, free=0, is_hungry=True, was_met=True)
    want, keep = plan(dollars(5), dollars(0.05), 65.0)
    assert want == keep == dollars(0.05), "others want it"


def test_the_next_period_is_asked_for_before_it_begins() -> None:
    midnight_s = NOV_24 + 18 * 3_600
    lending = Lending((_BUDGET,))
    assert [key[1] for key in lending.keys(midnight_s - 30)] == ["2026-11-24", "2026-11-25"]
    assert lending.since(midnight_s) == ("2026-11-22", "2026-10")

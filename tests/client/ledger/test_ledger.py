"""The ledger in one process: what is reserved, booked, refused and told."""

import asyncio
import sqlite3
from collections.abc import Sequence

import pytest

from ai_client.contract.events import BudgetAlert
from ai_client.contract.request import Usage
from ai_client.contract.stores import EntryId, Ledger
from ai_client.errors import BudgetExceeded
from ai_client.ledger.ledger import SpendLedger
from ai_client.ledger.owner import SLOTS
from ai_client.platform.clock import ManualClock
from tests.client.ledger.ledger_stage import PRICES, Stage, dollar_plan, reserve


async def test_it_is_the_ledger_that_the_client_asks_for(stage: Stage) -> None:
    """ports.Ledger is the contract; the assignment is checked by mypy."""
    port: Ledger = stage.ledger()
    entry = await port.reserve(request_id="r", model="m", tenant="team-a", upper=Usage(1, 1), tags={})
    port.release(entry)


async def test_a_reserve_is_held_and_its_settlement_spent(stage: Stage) -> None:
    """The reserve of 5 dollars becomes the 3 that were used; the cost comes back in dollars."""
    ledger = stage.ledger()
    entry = await reserve(ledger, 5)
    assert stage.totals() == {"team-a": (5, 0)}
    assert ledger.settle(entry, Usage(1_000, 2_500, cached_input_tokens=1_000)) == 3.0
    ledger.flush()
    assert stage.totals() == {"team-a": (0, 3)}
    assert stage.totals("2026-11") == {"team-a": (0, 3)}


async def test_a_release_gives_everything_back(stage: Stage) -> None:
    """Nothing was sent, nothing is booked."""
    ledger = stage.ledger()
    ledger.release(await reserve(ledger, 5))
    ledger.flush()
    assert stage.totals() == {"team-a": (0, 0)}


async def test_what_may_have_been_billed_is_booked_whole(stage: Stage) -> None:
    """Billed-unknown: the reserve, marked as such."""
    ledger = stage.ledger()
    entry = await reserve(ledger, 5)
    ledger.billed_unknown(entry)
    ledger.flush()
    assert stage.totals() == {"team-a": (0, 5)}
    assert stage.rows("SELECT fate, cost_nusd FROM entry") == [(3, 5 * 10**9)]


async def test_of_several_endings_the_first_counts(stage: Stage) -> None:
    """A `finally` that releases after a settlement changes nothing."""
    ledger = stage.ledger()
    entry = await reserve(ledger, 5)
    ledger.settle(entry, Usage(0, 2_000))
    ledger.release(entry)
    ledger.billed_unknown(entry)
    assert ledger.settle(entry, Usage(0, 9_000)) == 0.0
    ledger.flush()
    assert stage.totals() == {"team-a": (0, 2)}


async def test_an_ending_waits_a_moment_for_company_and_no_longer(stage: Stage, clock: ManualClock) -> None:
    """50 ms later it is committed without anybody asking."""
    ledger = stage.ledger()
    entry = await reserve(ledger, 5)
    ledger.settle(entry, Usage(0, 2_000))
    assert stage.totals() == {"team-a": (5, 0)}
    clock.advance(0.05)
    assert stage.totals() == {"team-a": (0, 2)}


async def test_reserves_of_one_turn_are_one_commit(stage: Stage) -> None:
    """A hundred callers at once cost one transaction."""
    commits = 0

    def count(point: str) -> None:
        nonlocal commits
        commits += point == "commit-done"

    ledger = SpendLedger(stage.path, prices=PRICES, clock=stage.clock, crash_hook=count)
    entries = await asyncio.gather(*(reserve(ledger, 1) for _ in range(100)))
    assert len(set(entries)) == 100
    assert commits == 1
    for entry in entries:
        ledger.release(entry)
    ledger.close()


async def test_a_hard_stop_refuses_what_could_overspend(stage: Stage) -> None:
    """Held and spent count alike; the error has all facts; what fits still goes."""
    ledger = stage.ledger(dollar_plan(daily=10))
    ledger.settle(await reserve(ledger, 4), Usage(0, 4_000))
    await reserve(ledger, 5)
    with pytest.raises(BudgetExceeded) as caught:
        await reserve(ledger, 2)
    error = caught.value
    assert (error.scope, error.period) == ("all", "day")
    assert (error.limit_usd, error.spent_usd, error.asked_usd) == (10.0, 9.0, 2.0)
    assert error.resets_at == 1_795_564_800.0  # 2026-11-25 00:00 UTC
    await reserve(ledger, 1)


async def test_a_tenant_s_budget_stops_that_tenant_alone(stage: Stage) -> None:
    """And the host's budget counts all of them together."""
    ledger = stage.ledger(dollar_plan(daily=10, tenant_daily=3))
    await reserve(ledger, 3)
    with pytest.raises(BudgetExceeded, match="team-a"):
        await reserve(ledger, 1)
    await reserve(ledger, 7, tenant="team-b")
    with pytest.raises(BudgetExceeded) as caught:
        await reserve(ledger, 1, tenant="team-b")
    assert caught.value.scope == "all"


async def test_in_one_commit_the_later_of_two_that_do_not_fit_together_is_refused(stage: Stage) -> None:
    """Each ask sees what those before it hold."""
    ledger = stage.ledger(dollar_plan(daily=10))
    results = await asyncio.gather(*(reserve(ledger, 4) for _ in range(4)), return_exceptions=True)
    assert [isinstance(result, BudgetExceeded) for result in results] == [False, False, True, True]


async def test_without_a_hard_stop_a_budget_only_tells(stage: Stage) -> None:
    """`hard_stop = false`: spending goes on, alerts come."""
    ledger = stage.ledger(dollar_plan(daily=10, hard_stop=False))
    ledger.settle(await reserve(ledger, 20), Usage(0, 20_000))
    ledger.flush()
    assert [event.threshold for event in stage.seen if isinstance(event, BudgetAlert)] == [0.8, 1.0]


async def test_an_alert_is_told_once_a_period_by_one_of_all_processes(
    stage: Stage, clock: ManualClock
) -> None:
    """Two ledgers on one file: one alert a day and threshold; the next day has its own."""
    plan = dollar_plan(daily=10)
    for day in ("2026-11-24", "2026-11-25"):
        stage.seen.clear()
        for ledger in (stage.ledger(plan), stage.ledger(plan)):
            for _ in range(2):
                ledger.settle(await reserve(ledger, 2), Usage(0, 2_000))
                ledger.flush()
        alerts = [event for event in stage.seen if isinstance(event, BudgetAlert)]
        assert [(each.scope, each.period, each.threshold) for each in alerts] == [("all", day, 0.8)]
        assert (alerts[0].limit_usd, alerts[0].spent_usd) == (10.0, 8.0)
        clock.advance(86_400)


async def test_the_next_day_has_its_own_budget_and_the_month_goes_on(
    stage: Stage, clock: ManualClock
) -> None:
    """What was reserved yesterday is booked to yesterday, whenever it ends."""
    ledger = stage.ledger(dollar_plan(daily=10, monthly=15))
    late = await reserve(ledger, 10)
    clock.advance(86_400)
    await reserve(ledger, 5)
    with pytest.raises(BudgetExceeded) as caught:
        await reserve(ledger, 1)
    assert caught.value.period == "month"
    ledger.settle(late, Usage(0, 1_000))
    await reserve(ledger, 5)
    assert stage.totals("2026-11-24") == {"team-a": (0, 1)}
    assert stage.totals("2026-11-25") == {"team-a": (10, 0)}


async def test_processes_share_one_budget(stage: Stage) -> None:
    """Each sees at once what the other holds and has spent."""
    plan = dollar_plan(daily=10)
    one, two = stage.ledger(plan), stage.ledger(plan)
    first = await reserve(one, 6)
    with pytest.raises(BudgetExceeded):
        await reserve(two, 6)
    one.settle(first, Usage(0, 1_000))
    one.flush()
    await reserve(two, 6)
    with pytest.raises(BudgetExceeded):
        await reserve(one, 6)


async def test_a_cancelled_reserve_holds_nothing(stage: Stage) -> None:
    """Cancelled before the commit, and in the same turn as it."""
    ledger = stage.ledger(dollar_plan(daily=10))
    before = asyncio.create_task(reserve(ledger, 10))
    await asyncio.sleep(0)
    before.cancel()
    same_turn = asyncio.create_task(reserve(ledger, 10))
    await asyncio.sleep(0)
    # The commit runs in the next turn, after this callback has been queued behind it.
    asyncio.get_running_loop().call_soon(same_turn.cancel)
    results = await asyncio.gather(before, same_turn, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError] * 2
    ledger.flush()
    assert stage.totals().get("team-a", (0, 0)) == (0, 0)
    assert ledger.stats().open_entries == 0


async def test_tags_of_the_host_and_of_the_request_are_on_the_entry(stage: Stage) -> None:
    """The request's win where both name one."""
    ledger = stage.ledger(team="core", env="prod")
    entry = await ledger.reserve(
        request_id="r", model="m", tenant="t", upper=Usage(1, 1), tags={"env": "test", "job": "7"}
    )
    ledger.release(entry)
    tags = stage.rows("SELECT tags FROM entry JOIN tagset ON tagset.id = entry.tagset")
    assert tags == [('{"env":"test","job":"7","team":"core"}',)]


async def test_more_entries_in_flight_than_slots_are_booked_too(stage: Stage) -> None:
    """Those beyond have no notes."""
    ledger = stage.ledger()
    entries: Sequence[EntryId] = await asyncio.gather(*(reserve(ledger, 1) for _ in range(SLOTS + 10)))
    assert stage.rows("SELECT fate, count(*) FROM entry GROUP BY fate") == [(4, SLOTS + 10)]
    for entry in entries:
        ledger.settle(entry, Usage(0, 1_000))
    ledger.flush()
    assert stage.totals() == {"team-a": (0, SLOTS + 10)}
    again = await asyncio.gather(*(reserve(ledger, 1) for _ in range(SLOTS)))
    assert stage.rows("SELECT count(*) FROM entry WHERE fate = 4") == [(SLOTS,)]
    for entry in again:
        ledger.release(entry)


async def test_closing_leaves_no_file_of_its_own(stage: Stage) -> None:
    """Owner row, notes, WAL and lock are gone; a second close does nothing."""
    ledger = stage.ledger()
    ledger.settle(await reserve(ledger, 1), Usage(0, 1_000))
    ledger.close()
    ledger.close()
    assert sorted(file.name for file in stage.path.parent.iterdir()) == ["ledger.owners", "ledger.sqlite"]
    assert stage.rows("SELECT count(*) FROM owner") == [(0,)]
    assert stage.totals() == {"team-a": (0, 1)}


async def test_the_files_are_readable_by_their_owner_alone(stage: Stage) -> None:
    """What a tenant spends is nobody else's business."""
    await reserve(stage.ledger(), 1)
    modes = {file.name: file.stat().st_mode & 0o777 for file in stage.path.parent.iterdir()}
    assert len(modes) == 5
    assert set(modes.values()) == {0o600}


async def test_of_endings_in_one_commit_those_that_another_booked_stay_as_they_are(stage: Stage) -> None:
    """A process that took this one for dead has booked one of them; the others are booked exactly."""
    ledger = stage.ledger()
    entries = [await reserve(ledger, 5) for _ in range(3)]
    with sqlite3.connect(stage.path) as other:
        other.execute(
            "UPDATE entry SET fate = 3, cost_nusd = 5 * 1000000000, ended_at = 1 WHERE id = ?", entries[1:2]
        )
        other.execute(
            "UPDATE total SET held_nusd = held_nusd - 5000000000, spent_nusd = spent_nusd + 5000000000"
        )
    other.close()
    for entry in entries:
        ledger.settle(entry, Usage(0, 1_000))
    ledger.flush()
    assert stage.totals() == {"team-a": (0, 7)}

"""The ledger in bad luck: a held lock, a file that is gone, dead neighbours, a full disk."""

import asyncio
import sqlite3
import subprocess
import sys

import pytest

from ai_client.contract.events import StoreDegraded
from ai_client.contract.request import Usage
from ai_client.contract.stores import EntryId
from ai_client.errors import BudgetExceeded, LedgerUnavailableError
from ai_client.ledger.file import LedgerFile
from ai_client.ledger.recovery import Recovered
from ai_client.platform.clock import ManualClock
from tests.client.ledger.ledger_stage import Stage, dollar_plan, reserve


async def test_a_lock_held_by_another_process_is_waited_for_without_blocking_the_loop(
    stage: Stage, clock: ManualClock
) -> None:
    """The loop turns while the lock is held; the reserve comes as soon as it is free."""
    ledger = stage.ledger()
    other = sqlite3.connect(stage.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(reserve(ledger, 1))
    for _ in range(5):
        await asyncio.sleep(0)
        clock.advance(0.01)
    assert not waiting.done()
    other.execute("ROLLBACK")
    other.close()
    clock.advance(0.01)
    assert await waiting > 0


@pytest.mark.parametrize("has_budget", [True, False])
async def test_a_lock_held_too_long_refuses_where_a_hard_budget_needs_the_ledger(
    stage: Stage, clock: ManualClock, has_budget: bool
) -> None:
    """After 5 s: refused with a hard budget, let through and counted without."""
    ledger = stage.ledger(dollar_plan(daily=10) if has_budget else None)
    other = sqlite3.connect(stage.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(reserve(ledger, 1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    clock.advance(5.1)
    if has_budget:
        with pytest.raises(LedgerUnavailableError):
            await waiting
    else:
        entry = await waiting
        assert ledger.settle(entry, Usage(0, 1_000)) == 1.0
        assert ledger.stats().unbooked == 1
    other.execute("ROLLBACK")
    other.close()


@pytest.mark.parametrize("has_budget", [True, False])
async def test_a_ledger_that_can_not_be_opened_is_told_once_and_tried_again(
    stage: Stage, clock: ManualClock, has_budget: bool
) -> None:
    """Without it a hard budget refuses; without a budget requests go on, and their costs are still known."""
    stage.path.write_bytes(b"no database at all " * 100)
    ledger = stage.ledger(dollar_plan(daily=10) if has_budget else None)
    for _ in range(2):
        if has_budget:
            with pytest.raises(LedgerUnavailableError, match="ledger"):
                await reserve(ledger, 1)
        else:
            assert ledger.settle(await reserve(ledger, 1), Usage(0, 1_000)) == 1.0
    assert [event.store for event in stage.seen if isinstance(event, StoreDegraded)] == ["ledger"]
    stage.path.unlink()
    clock.advance(6)
    ledger.settle(await reserve(ledger, 1), Usage(0, 1_000))
    ledger.flush()
    assert stage.totals() == {"team-a": (0, 1)}


async def test_recovery_finds_an_old_open_entry_behind_many_that_have_ended(
    stage: Stage, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks from the oldest entry in flight on; entries that were never booked don't lead it astray."""
    monkeypatch.setattr("ai_client.ledger.file._LOW_ENTRY_EVERY", 1)
    stage.path.write_bytes(b"no database at all " * 100)
    ledger = stage.ledger()
    await reserve(ledger, 1)
    stage.path.unlink()
    clock.advance(6)
    for _ in range(5):
        ledger.settle(await reserve(ledger, 1), Usage(0, 1_000))
    old = await reserve(ledger, 7)
    for _ in range(5):
        ledger.settle(await reserve(ledger, 1), Usage(0, 1_000))
    assert stage.rows("SELECT low_entry FROM owner") == [(old,)]
    ledger.close()
    stage.ledger()
    assert stage.totals() == {"team-a": (0, 17)}


async def test_a_ledger_deleted_under_a_running_process_is_begun_anew(
    stage: Stage, clock: ManualClock
) -> None:
    """Told; what is in flight then ends without a word; from the next reserve on all is booked again."""
    ledger = stage.ledger()
    in_flight = await reserve(ledger, 3)
    for file in stage.files():
        file.unlink()
    clock.advance(2)
    await reserve(ledger, 1)
    assert [event.store for event in stage.seen if isinstance(event, StoreDegraded)] == ["ledger"]
    assert ledger.settle(in_flight, Usage(0, 3_000)) == 3.0
    ledger.settle(await reserve(ledger, 2), Usage(0, 2_000))
    ledger.flush()
    assert stage.totals() == {"team-a": (0, 2)}


async def _turns(task: "asyncio.Task[EntryId]") -> None:
    """What the loop has to do by now; a reserve that nobody answers is still open then."""
    for _ in range(20):
        await asyncio.sleep(0)
    if not task.done():
        task.cancel()
        pytest.fail("the reserve was never answered")


@pytest.mark.parametrize("is_replaced", [True, False])
async def test_who_asks_again_as_the_file_is_abandoned_is_answered(
    stage: Stage, clock: ManualClock, is_replaced: bool
) -> None:
    """Refused once, it waits for the look at the dead; meanwhile the commit finds that the file was deleted."""
    ledger = stage.ledger(dollar_plan(daily=10))
    await reserve(ledger, 8)
    for file in stage.files():
        file.unlink()
    if not is_replaced:
        stage.path.write_bytes(b"no database at all " * 100)
    clock.advance(6)
    task = asyncio.create_task(
        ledger.reserve(request_id="r", model="m", tenant="team-a", upper=Usage(0, 5_000), tags={})
    )
    await _turns(task)
    if is_replaced:
        assert task.result() > 0
        assert stage.totals() == {"team-a": (5, 0)}
    else:
        assert isinstance(task.exception(), LedgerUnavailableError)


@pytest.mark.parametrize("has_budget", [True, False])
@pytest.mark.parametrize("step", ["commit", "look_after"])
async def test_whoever_waits_for_a_commit_that_breaks_is_answered(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, step: str, has_budget: bool
) -> None:
    """By whatever it breaks: the fault is told by the loop, and nobody waits for it for ever."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("nobody thought of this")

    told: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(context.get("exception")))
    ledger = stage.ledger(dollar_plan(daily=10) if has_budget else None)
    with monkeypatch.context() as patch:
        patch.setattr(LedgerFile, step, broken)
        task = asyncio.create_task(
            ledger.reserve(request_id="r", model="m", tenant="team-a", upper=Usage(0, 5_000), tags={})
        )
        await _turns(task)
    assert [type(each) for each in told] == [RuntimeError]
    if step == "commit" and has_budget:
        assert isinstance(task.exception(), LedgerUnavailableError)
    else:
        ledger.release(task.result())
    assert await reserve(ledger, 1) > 0


async def test_what_a_dead_neighbour_held_comes_back_before_anybody_is_refused(
    stage: Stage, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal is believed only after owners that are gone were looked for."""
    plan = dollar_plan(daily=10)
    neighbour, ledger = stage.ledger(plan), stage.ledger(plan)
    refused, _ = await reserve(neighbour, 6), await reserve(neighbour, 2)
    clock.advance(6)
    with pytest.raises(BudgetExceeded):
        await reserve(ledger, 5)
    # This ending is noted, and its process gone before the commit.
    monkeypatch.setattr(neighbour, "_commit", lambda: None)
    neighbour.release(refused)
    # Closing with entries open leaves them as a kill does.
    neighbour.close()
    clock.advance(6)
    # Both of one commit, of which one alone asks for the dead.
    await asyncio.gather(reserve(ledger, 3), reserve(ledger, 5))
    assert stage.totals() == {"team-a": (8, 2)}


async def test_a_busy_file_does_not_keep_what_the_dead_held(
    stage: Stage, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where another process writes just as dead owners are looked for, that is done a moment later."""
    plan = dollar_plan(daily=10)
    neighbour, ledger = stage.ledger(plan), stage.ledger(plan)
    refused = await reserve(neighbour, 8)
    # This ending is noted, and its process gone before the commit.
    monkeypatch.setattr(neighbour, "_commit", lambda: None)
    neighbour.release(refused)
    neighbour.close()
    recover, attempts = LedgerFile.recover, []

    def beside_a_writer(file: LedgerFile) -> Recovered:
        attempts.append(clock.monotonic())
        if len(attempts) > 1:
            return recover(file)
        writer = sqlite3.connect(stage.path, isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")
        try:
            return recover(file)
        finally:
            writer.close()

    monkeypatch.setattr(LedgerFile, "recover", beside_a_writer)
    clock.advance(6)
    await reserve(ledger, 5)
    assert len(attempts) > 1
    assert stage.totals() == {"team-a": (5, 0)}


CHILD = """
import asyncio, resource, sys
from pathlib import Path
from ai_client.ledger.budgets import ALL_TENANTS, Budget, BudgetPlan, Span
from ai_client.errors import LedgerUnavailableError
from ai_client.ledger.ledger import SpendLedger
from ai_client.ledger.prices import Price, Prices
from ai_client.contract.request import Usage

async def main():
    budgets = (Budget(ALL_TENANTS, Span.DAY, 10**18),) if sys.argv[2] == "hard" else ()
    prices = Prices({"m": Price(10**12, 10**12, 10**12)})
    ledger = SpendLedger(Path(sys.argv[1]), prices=prices, plan=BudgetPlan(budgets=budgets))

    async def spend():
        entry = await ledger.reserve(request_id="r", model="m", tenant="t", upper=Usage(0, 1_000))
        ledger.settle(entry, Usage(0, 1_000))

    await spend()
    # The kernel refuses every write beyond this size, as a full disk does.
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, unlimited[1]))
    refused = 0
    for _ in range(5):
        try:
            await spend()
        except LedgerUnavailableError:
            refused += 1
    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    await spend()
    stats = ledger.stats()
    ledger.close()
    print(refused, stats.unbooked, stats.errors > 0)

asyncio.run(main())
"""


@pytest.mark.parametrize(("kind", "expected"), [("hard", "5 0 True"), ("none", "0 5 True")])
def test_a_full_disk_refuses_only_where_a_hard_budget_needs_the_ledger(
    stage: Stage, kind: str, expected: str
) -> None:
    """As soon as there is room again, everything is booked; what was let through meanwhile is counted."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, stage.path, kind],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.strip() == expected, done.stderr
    db = sqlite3.connect(stage.path)
    assert db.execute(
        "SELECT sum(held_nusd), sum(spent_nusd) FROM total WHERE length(period) = 10"
    ).fetchall() == [(0, 2 * 10**9)]
    db.close()

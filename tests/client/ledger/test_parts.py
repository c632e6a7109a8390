"""The ledger's parts: budgets, owners, verdicts, the file's layout, usage reports, pruning."""

import asyncio
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Awaitable
from contextlib import closing
from pathlib import Path

import pytest

from ai_client.contract.request import Usage
from ai_client.contract.stores import EntryId
from ai_client.errors import LedgerUnavailableError
from ai_client.ledger.book import survive
from ai_client.ledger.budgets import ALL_TENANTS, Amount, Budget, BudgetPlan, Span, fits, shares_passed
from ai_client.ledger.ledger import SpendLedger
from ai_client.ledger.owner import (
    SLOTS,
    Fate,
    FlightNotes,
    Note,
    booted_at_s,
    is_alive,
    is_same_boot,
    lock_owner,
    open_locks,
    read_notes,
)
from ai_client.ledger.prices import Price, Prices
from ai_client.ledger.recovery import OpenEntry, verdict
from ai_client.ledger.schema import MIGRATIONS, LedgerTooNewError, open_ledger
from ai_client.ledger.upkeep import KEEP_DAYS_S, KEEP_ENTRIES_S, prune
from ai_client.ledger.usage import read_usage
from ai_client.platform.clock import ManualClock
from ai_client.settings import BudgetSettings, TenantSettings
from tests.client.ledger.ledger_waiting import granted

PRICES = Prices({"m": Price(10**12, 10**12, 10**12), "n": Price(10**12, 10**12, 10**12)})
NOV_24 = 1_795_500_000.0
ROW = OpenEntry(entry=7, fate=Fate.RESERVED, reserved_nusd=100, day="2026-11-24", tenant="t")


def test_a_plan_is_made_of_the_settings() -> None:
    """Amounts in nano-dollars, only those that are set; the alert share and the whole limit."""
    plan = BudgetPlan.from_settings(
        BudgetSettings(daily_usd=12.5, alert_at_share=0.5, timezone="Europe/Berlin", hard_stop=False),
        [TenantSettings(name="a", monthly_usd=0.1), TenantSettings(name="b")],
    )
    assert plan.budgets == (
        Budget(ALL_TENANTS, Span.DAY, 12_500_000_000),
        Budget("a", Span.MONTH, 100_000_000),
    )
    assert (plan.alert_shares, plan.timezone, plan.hard_stop) == ((0.5, 1.0), "Europe/Berlin", False)
    assert plan.of("a") == plan.budgets
    assert plan.of("c") == plan.budgets[:1]


def test_a_budget_of_nothing_lets_nothing_through() -> None:
    """`daily_usd = 0` is a stop, not a budget that is not set; it has no shares to alert at."""
    budget = Budget("a", Span.DAY, 0)
    assert not fits(budget, Amount(0, 0), 1)
    assert fits(budget, Amount(0, 0), 0)
    assert shares_passed(budget, Amount(0, 0), (0.8, 1.0)) == ()


@pytest.mark.parametrize(
    ("row_fate", "note_fate", "trusts", "fate", "cost"),
    [
        (Fate.SENT, None, True, Fate.BILLED_UNKNOWN, 100),
        (Fate.SENT, Fate.SETTLED, True, Fate.SETTLED, 42),
        (Fate.SENT, Fate.RELEASED, True, Fate.RELEASED, 0),
        (Fate.SENT, Fate.BILLED_UNKNOWN, True, Fate.BILLED_UNKNOWN, 100),
        (Fate.RESERVED, None, True, Fate.BILLED_UNKNOWN, 100),
        (Fate.SENT, None, False, Fate.BILLED_UNKNOWN, 100),
        (Fate.SENT, Fate.SETTLED, False, Fate.BILLED_UNKNOWN, 100),
        (Fate.SENT, Fate.RELEASED, False, Fate.BILLED_UNKNOWN, 100),
    ],
)
def test_what_may_have_been_sent_is_booked_and_only_what_surely_was_not_is_given_back(
    row_fate: Fate, note_fate: Fate | None, trusts: bool, fate: Fate, cost: int
) -> None:
    """Of a dead owner's entry; notes that are lost or older than the machine's start prove nothing."""
    costs = {Fate.SETTLED: 42, Fate.BILLED_UNKNOWN: 100}
    note = None if note_fate is None else Note(7, note_fate, costs.get(note_fate, 0), 4, 2, 1)
    row = OpenEntry(ROW.entry, row_fate, ROW.reserved_nusd, ROW.day, ROW.tenant)
    ending = verdict(row, note, trusts_notes=trusts)
    assert (ending.fate, ending.cost_nusd) == (fate, cost)


def test_notes_are_read_as_they_were_written(tmp_path: Path) -> None:
    """A slot holds its last note."""
    notes = FlightNotes(tmp_path / "n.flight")
    slot = notes.take_slot()
    assert slot is not None
    notes.write(slot, Note(4, Fate.RELEASED))
    notes.write(slot, Note(5, Fate.SETTLED, 42, 4, 2, 1))
    notes.close(keep=True)
    assert read_notes(tmp_path / "n.flight") == {5: Note(5, Fate.SETTLED, 42, 4, 2, 1)}


@pytest.mark.parametrize("content", [None, b"", b"\x00" * 100, b"\xff" * SLOTS * 48])
def test_notes_that_are_missing_or_damaged_are_not_trusted(tmp_path: Path, content: bytes | None) -> None:
    """None, and never an error."""
    if content is not None:
        (tmp_path / "n.flight").write_bytes(content)
    assert read_notes(tmp_path / "n.flight") is None


def test_slots_run_out_and_come_back(tmp_path: Path) -> None:
    """None where all are taken."""
    notes = FlightNotes(tmp_path / "n.flight")
    taken = [notes.take_slot() for _ in range(SLOTS)]
    assert notes.take_slot() is None
    assert taken[3] is not None
    notes.give_slot(taken[3])
    assert notes.take_slot() == taken[3]
    notes.close(keep=False)
    assert not (tmp_path / "n.flight").exists()


def test_an_owner_s_lock_dies_with_its_process(tmp_path: Path) -> None:
    """Held by a child until it is killed: no process id is asked, so none can be mistaken."""
    program = (
        "import sys; from pathlib import Path; from ai_client.ledger.owner import lock_owner, open_locks;"
        "locks = open_locks(Path(sys.argv[1])); lock_owner(locks, 3); print('held', flush=True); sys.stdin.read()"
    )
    ledger = tmp_path / "ledger.sqlite"
    child = subprocess.Popen(
        [sys.executable, "-c", program, ledger], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"held\n"
    locks = open_locks(ledger)
    assert is_alive(locks, 3)
    assert not is_alive(locks, 4)
    with pytest.raises(BlockingIOError):
        lock_owner(locks, 3)
    child.kill()
    child.communicate(timeout=30)
    assert not is_alive(locks, 3)
    os.close(locks)


def test_every_migration_only_adds() -> None:
    """Tables, indexes, and columns that may be null or have a default: the release before must still read it."""
    for statement in (statement for migration in MIGRATIONS for statement in migration):
        assert re.match(r"(CREATE (TABLE|INDEX)|INSERT INTO meta|ALTER TABLE \w+ ADD COLUMN)", statement)
        if statement.startswith("ALTER"):
            assert "NOT NULL" not in statement or "DEFAULT" in statement


NEXT_RELEASE = (
    *MIGRATIONS,
    (
        "ALTER TABLE entry ADD COLUMN endpoint TEXT",
        "ALTER TABLE owner ADD COLUMN host TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE total ADD COLUMN calls INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE usage_day ADD COLUMN batch INTEGER NOT NULL DEFAULT 0",
        "CREATE TABLE forecast(day TEXT PRIMARY KEY, nusd INTEGER NOT NULL)",
        "CREATE INDEX entry_by_request ON entry(request_id)",
    ),
)


async def spend(
    ledger: SpendLedger, tokens: int, *, model: str = "m", tenant: str = "t", **tags: str
) -> None:
    request = ledger.reserve(request_id="r", model=model, tenant=tenant, upper=Usage(0, tokens), tags=tags)
    entry = await granted(request, ledger)
    ledger.settle(entry, Usage(0, tokens))


async def test_this_release_works_on_a_file_that_the_next_one_has_migrated(tmp_path: Path) -> None:
    """After a roll-back: it reserves, settles, recovers, prunes and reports as on its own file."""
    path = tmp_path / "ledger.sqlite"
    ledger = SpendLedger(path, prices=PRICES, clock=ManualClock(wall_s=NOV_24))
    await spend(ledger, 1_000)
    await ledger.reserve(request_id="open", model="m", tenant="t", upper=Usage(0, 1), tags={})
    open_ledger(path, busy_timeout_s=5, migrations=NEXT_RELEASE).close()
    await spend(ledger, 1_000)
    ledger.close()
    again = SpendLedger(path, prices=PRICES, clock=ManualClock(wall_s=NOV_24 + 86_400))
    await spend(again, 1_000)
    again.close()
    db = open_ledger(path, busy_timeout_s=5)
    assert db.execute("PRAGMA user_version").fetchone()[0] == len(NEXT_RELEASE)
    assert prune(db, now_s=NOV_24 + 2 * KEEP_ENTRIES_S, crash_hook=survive) == 3
    db.close()
    report = read_usage(path, first_day="2026-11-01", last_day="2026-11-30", by=["day"])
    assert [(row.group, row.requests) for row in report.rows] == [(("2026-11-24",), 3), (("2026-11-25",), 1)]


def test_the_first_file_there_ever_was_is_migrated_in_place(tmp_path: Path) -> None:
    """From each release's layout to this one's."""
    for done in range(1, len(NEXT_RELEASE)):
        path = tmp_path / f"ledger-{done}.sqlite"
        open_ledger(path, busy_timeout_s=5, migrations=NEXT_RELEASE[:done]).close()
        db = open_ledger(path, busy_timeout_s=5, migrations=NEXT_RELEASE)
        assert db.execute("PRAGMA user_version").fetchone()[0] == len(NEXT_RELEASE)
        assert db.execute("SELECT count(*) FROM forecast").fetchone() == (0,)
        db.close()


def test_a_file_that_needs_a_newer_reader_is_refused_with_the_remedy(tmp_path: Path) -> None:
    """Where a release could not keep to the rule, it says so in the file."""
    path = tmp_path / "ledger.sqlite"
    db = open_ledger(path, busy_timeout_s=5)
    db.execute("UPDATE meta SET value = '9' WHERE name = 'min_reader'")
    db.close()
    with pytest.raises(LedgerTooNewError, match="install the release that wrote it"):
        open_ledger(path, busy_timeout_s=5)


def test_two_processes_may_make_the_file_at_once(tmp_path: Path) -> None:
    """Both find it whole."""
    program = (
        "import sys; from pathlib import Path; from ai_client.ledger.schema import open_ledger;"
        "sys.stdin.read(); open_ledger(Path(sys.argv[1]), busy_timeout_s=10).close()"
    )
    for number in range(5):
        path = tmp_path / f"ledger-{number}.sqlite"
        children = [
            subprocess.Popen([sys.executable, "-c", program, path], stdin=subprocess.PIPE) for _ in range(4)
        ]
        for child in children:
            assert child.stdin is not None
            child.stdin.close()
        assert [child.wait(timeout=60) for child in children] == [0] * 4


async def test_usage_is_reported_by_every_dimension_and_survives_pruning(tmp_path: Path) -> None:
    """By day, month, tenant, model and tag; old entries summed up by day give the same report."""
    path = tmp_path / "ledger.sqlite"
    clock = ManualClock(wall_s=NOV_24)
    ledger = SpendLedger(path, prices=PRICES, tags={"env": "prod"}, clock=clock)
    await spend(ledger, 1_000, tenant="a", job="x")
    await spend(ledger, 2_000, tenant="b", model="n", job="y")
    ledger.release(await ledger.reserve(request_id="r", model="m", tenant="a", upper=Usage(0, 5), tags={}))
    clock.advance(10 * 86_400)
    request = ledger.reserve(request_id="r", model="m", tenant="a", upper=Usage(0, 4_000), tags={})
    ledger.billed_unknown(await granted(request, ledger))
    await spend(ledger, 1, tenant="a")
    ledger.close()

    def report(*by: str) -> list[tuple[tuple[str, ...], int, float]]:
        rows = read_usage(path, first_day="2026-01-01", last_day="2026-12-31", by=by).rows
        return [(row.group, row.requests, float(row.cost_usd)) for row in rows]

    before = {by: report(by) for by in ("day", "month", "tenant", "model", "tag:env", "tag:job")}
    assert before["day"] == [(("2026-11-24",), 2, 3.0), (("2026-12-04",), 2, 4.001)]
    assert before["month"] == [(("2026-11",), 2, 3.0), (("2026-12",), 2, 4.001)]
    assert before["tenant"] == [(("a",), 3, 5.001), (("b",), 1, 2.0)]
    assert before["model"] == [(("m",), 3, 5.001), (("n",), 1, 2.0)]
    assert before["tag:env"] == [(("prod",), 4, 7.001)]
    assert before["tag:job"] == [(("",), 2, 4.001), (("x",), 1, 1.0), (("y",), 1, 2.0)]
    assert report("tenant", "model")[0] == (("a", "m"), 3, 5.001)
    db = open_ledger(path, busy_timeout_s=5)
    assert prune(db, now_s=clock.wall() + KEEP_ENTRIES_S + 1, crash_hook=survive) == 4
    assert db.execute("SELECT count(*) FROM entry").fetchone() == (1,)
    db.close()
    assert {by: report(by) for by in before} == before
    total = read_usage(path, first_day="2026-12-01", last_day="2026-12-31", by=[]).total
    assert (total.requests, total.unknown_requests, float(total.unknown_usd)) == (2, 1, 4.0)


def test_usage_by_something_unknown_names_what_there_is(tmp_path: Path) -> None:
    """And a missing ledger is SQLite's own error: nothing is made by asking."""
    with pytest.raises(ValueError, match="day, month, tenant, model, tag:NAME"):
        read_usage(tmp_path / "ledger.sqlite", first_day="", last_day="", by=["colour"])
    with pytest.raises(sqlite3.OperationalError):
        read_usage(tmp_path / "ledger.sqlite", first_day="", last_day="", by=["day"])
    assert list(tmp_path.iterdir()) == []


async def test_what_is_very_old_is_forgotten(tmp_path: Path) -> None:
    """So that the file stays small for ever: sums by day go too, after some years."""
    path = tmp_path / "ledger.sqlite"
    ledger = SpendLedger(path, prices=PRICES, clock=ManualClock(wall_s=NOV_24))
    for _ in range(2_500):
        await spend(ledger, 1)
    ledger.close()
    db = open_ledger(path, busy_timeout_s=5)
    assert prune(db, now_s=NOV_24 + KEEP_ENTRIES_S + 1, crash_hook=survive) == 2_499
    assert db.execute("SELECT requests FROM usage_day").fetchall() == [(2_499,)]
    prune(db, now_s=NOV_24 + KEEP_DAYS_S + 2 * 86_400, crash_hook=survive)
    assert db.execute("SELECT count(*) FROM usage_day").fetchone() == (0,)
    assert db.execute("SELECT count(*) FROM total").fetchone() == (0,)
    db.close()


def test_a_machine_s_start_is_the_same_however_often_it_is_asked_for() -> None:
    """Without /proc, which a hardened unit sees only in part; another start is another moment."""
    first = booted_at_s()
    assert first < time.time()
    assert is_same_boot(first, booted_at_s())
    assert not is_same_boot(first, first + 30)


async def test_notes_from_before_a_power_cut_prove_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was given back by its note alone is booked all the same."""
    path = tmp_path / "ledger.sqlite"
    clock = ManualClock(wall_s=NOV_24)
    ledger = SpendLedger(path, prices=PRICES, clock=clock)
    request = ledger.reserve(request_id="r", model="m", tenant="t", upper=Usage(0, 3_000), tags={})
    entry = await granted(request, ledger)
    monkeypatch.setattr(ledger, "_commit", lambda: None)  # a kill before it
    ledger.release(entry)
    ledger.close()
    monkeypatch.setattr("ai_client.ledger.file.booted_at_s", lambda: booted_at_s() + 3_600)
    SpendLedger(path, prices=PRICES, clock=clock).close()
    report = read_usage(path, first_day="2026-11-24", last_day="2026-11-24", by=["day"])
    assert (report.total.unknown_requests, float(report.total.cost_usd)) == (1, 3.0)


async def test_one_request_that_can_not_be_written_fails_alone(tmp_path: Path) -> None:
    """Others of its turn are granted and booked: the model's name is no UTF-8, which SQLite refuses to bind."""
    ledger = SpendLedger(tmp_path / "ledger.sqlite", prices=PRICES)

    def ask(name: str, *, model: str = "m", tokens: int = 10) -> Awaitable[EntryId]:
        return ledger.reserve(request_id=name, model=model, tenant=name, upper=Usage(100, tokens))

    earlier = await ask("earlier")
    ledger.settle(earlier, Usage(5, 5))
    async with asyncio.timeout(10):
        granted, broken, huge = await asyncio.gather(
            ask("innocent"), ask("broken", model="\ud800"), ask("huge", tokens=10**30), return_exceptions=True
        )
    assert isinstance(broken, LedgerUnavailableError)
    assert isinstance(granted, int)
    assert isinstance(huge, int)
    assert ledger.settle(EntryId(granted), Usage(10**30, 10**30)) > 0
    ledger.close()
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as db:
        fates = dict(db.execute("SELECT id, fate FROM entry"))
    assert fates[earlier] == fates[granted] == Fate.SETTLED

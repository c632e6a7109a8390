"""`kill -9` at every point: the ledger never overspends and never forgets.

The points are those that the code itself names (`CrashPoint`), so a new one is tested as soon as it exists.
"""

import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from ai_client.ledger.book import CrashPoint, survive
from ai_client.ledger.file import LedgerFile
from ai_client.ledger.owner import Fate
from tests.client.ledger.ledger_crasher import BUDGET_NUSD, PLAN, RESERVE_TOKENS, TOKEN_NUSD, FixedDay

pytestmark = pytest.mark.slow

CRASHER = Path(__file__).with_name("ledger_crasher.py")
CONCURRENCY = 4
# Requests of a worker: more than the budget allows.
MANY = 100_000


class Account:
    """The ledger's file beside what the upstream has really billed."""

    def __init__(self, folder: Path) -> None:
        self.ledger = folder / "ledger.sqlite"
        self.log = folder / "upstream.log"

    def run(self, point: str, nth: int, *, seed: int = 1) -> int:
        """Runs the crasher to its end; the signal that ended it, or its exit code."""
        (code,) = self.run_together((point, nth, MANY), seed=seed)
        return code

    def run_together(self, *runs: tuple[str, int, int], seed: int = 1) -> list[int]:
        """Runs several crashers at once, each with its point, its count of it and its most requests a worker."""
        processes = []
        for index, (point, nth, most) in enumerate(runs):
            arguments = [self.ledger, self.log, point, nth, CONCURRENCY, seed + index, most]
            command = [sys.executable, CRASHER, *map(str, arguments)]
            pipe = subprocess.PIPE
            processes.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe))
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()  # it is ready, or ended
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
            process.stdin = None  # `communicate` would flush it
        for process in processes:
            _, errors = process.communicate(timeout=60)
            assert process.returncode in (0, -signal.SIGKILL), errors.decode()
        return [process.returncode for process in processes]

    def recover(self) -> None:
        """What the next start does."""
        LedgerFile(self.ledger, plan=PLAN, clock=FixedDay(), crash_hook=survive).close(keep_notes=False)

    def billed(self) -> dict[str, int]:
        """Nano-dollars by request, as the upstream has billed them."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return {name: int(tokens) * TOKEN_NUSD for name, tokens in map(str.split, lines)}

    def rows(self, query: str) -> list[tuple[object, ...]]:
        db = sqlite3.connect(self.ledger)
        try:
            return db.execute(query).fetchall()
        finally:
            db.close()

    def assert_sound(self, *, kills: int) -> None:
        """Nothing is held, nothing billed is missing, the totals are the entries' sums, the budget is kept."""
        billed = self.billed()
        entries = {
            str(name): (fate, int(str(nusd)))
            for name, fate, nusd in self.rows("SELECT request_id, fate, cost_nusd FROM entry")
        }
        for name, nusd in billed.items():
            if name not in entries:
                continue  # summed up by day: counted below
            fate, cost_nusd = entries[name]
            assert fate in (Fate.SETTLED, Fate.BILLED_UNKNOWN), name
            assert cost_nusd >= nusd
            assert fate == Fate.BILLED_UNKNOWN or cost_nusd == nusd
        unsent = [name for name, (fate, nusd) in entries.items() if nusd and name not in billed]
        assert len(unsent) <= kills * CONCURRENCY
        ((held, spent),) = self.rows(
            "SELECT sum(held_nusd), sum(spent_nusd) FROM total WHERE length(period) = 10"
        )
        ((summed,),) = self.rows(
            "SELECT (SELECT ifnull(sum(cost_nusd), 0) FROM entry)"
            " + (SELECT ifnull(sum(cost_nusd), 0) FROM usage_day)"
        )
        assert (held or 0, spent or 0) == (0, summed)
        assert sum(billed.values()) <= int(str(summed)) <= BUDGET_NUSD


@pytest.fixture
def account(tmp_path: Path) -> Account:
    return Account(tmp_path)


@pytest.mark.parametrize("point", [point for point in CrashPoint if not point.startswith("recovery")])
def test_a_kill_at_this_point_neither_overspends_nor_forgets(account: Account, point: CrashPoint) -> None:
    """Killed there, started again, killed there later, and so on; then run until the budget stops it."""
    first_time = point in (CrashPoint.OWNER_UNCOMMITTED, CrashPoint.OWNER_COMMITTED) or "prune" in point
    kills = 0
    for nth in (1,) if first_time else (1, 7, 40):
        assert account.run(point, nth, seed=nth) == -signal.SIGKILL
        kills += 1
        account.recover()
        account.assert_sound(kills=kills)
    assert account.run("never", 1) == 0
    account.recover()
    account.assert_sound(kills=kills)


@pytest.mark.parametrize("point", [CrashPoint.RECOVERY_WRITTEN, CrashPoint.RECOVERY_DONE])
def test_a_kill_within_the_recovery_books_nothing_twice(account: Account, point: CrashPoint) -> None:
    """The recovery of a killed process is killed itself; the one after it finds all or nothing of it done."""
    assert account.run(CrashPoint.END_UNWRITTEN, 25) == -signal.SIGKILL
    assert account.run(point, 1) == -signal.SIGKILL
    account.recover()
    account.assert_sound(kills=1)
    assert not list(account.ledger.parent.glob("*.flight"))
    assert account.run("never", 1) == 0
    account.recover()
    account.assert_sound(kills=1)


def test_many_kills_in_a_row_keep_one_budget(account: Account) -> None:
    """Random points, random moments: the day's budget holds over all lives of the process together."""
    dice = random.Random(4)  # noqa: S311
    points = [
        CrashPoint.END_UNWRITTEN,
        CrashPoint.END_WRITTEN,
        CrashPoint.COMMIT_WRITTEN,
        CrashPoint.COMMIT_DONE,
    ]
    kills = 0
    for seed in range(8):
        if account.run(dice.choice(points), dice.randint(1, 60), seed=seed) == -signal.SIGKILL:
            kills += 1
    assert kills >= 4
    assert account.run("never", 1) == 0
    account.recover()
    account.assert_sound(kills=kills)


def test_several_processes_at_once_keep_one_budget_while_one_is_killed(account: Account) -> None:
    """Three spend together; what the killed one held comes back to the others, who spend it to the end."""
    # Two that cannot use up the budget alone, so that the third always comes to its end.
    few = BUDGET_NUSD // TOKEN_NUSD // RESERVE_TOKENS // CONCURRENCY // 4
    codes = account.run_together(("never", 1, few), (CrashPoint.END_UNWRITTEN, 30, MANY), ("never", 1, few))
    assert codes == [0, -signal.SIGKILL, 0]
    account.recover()
    account.assert_sound(kills=1)
    assert account.run_together(("never", 1, MANY), ("never", 1, MANY)) == [0, 0]
    account.recover()
    account.assert_sound(kills=1)
    # Within one reserve of the limit: nothing that was held by the dead is lost to the living.
    ((spent,),) = account.rows("SELECT sum(spent_nusd) FROM total WHERE length(period) = 10")
    assert int(str(spent)) > BUDGET_NUSD - RESERVE_TOKENS * TOKEN_NUSD

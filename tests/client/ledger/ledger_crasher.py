"""A program that spends through a ledger until it is killed at a crash point, or its budget stops it.

    python ledger_crasher.py LEDGER UPSTREAM_LOG POINT NTH CONCURRENCY SEED MOST

Each of its CONCURRENCY workers makes MOST requests at most. It says "ready" and begins when its standard input ends.

The "upstream" is a log: one line, in one write, for each request that it executes and bills, with what it costs. It
stands for what the account really pays, whatever the ledger knows of it.
"""

import asyncio
import os
import random
import signal
import sys
from pathlib import Path

from ai_client.contract.request import Usage
from ai_client.errors import BudgetExceeded
from ai_client.ledger.book import CrashPoint
from ai_client.ledger.budgets import ALL_TENANTS, Budget, BudgetPlan, Span
from ai_client.ledger.ledger import SpendLedger
from ai_client.ledger.prices import Price, Prices
from ai_client.ledger.schema import open_ledger
from ai_client.ledger.upkeep import KEEP_ENTRIES_S, prune
from ai_client.platform.clock import SystemClock

PRICES = Prices({"m": Price(10**12, 10**12, 10**12)})
RESERVE_TOKENS = 100
TOKEN_NUSD = 10**6
BUDGET_NUSD = 20_000 * TOKEN_NUSD
PLAN = BudgetPlan(budgets=(Budget(ALL_TENANTS, Span.DAY, BUDGET_NUSD), Budget("t", Span.MONTH, BUDGET_NUSD)))
NOW_S = 1_795_500_000.0


class Killer:
    """A crash hook that kills its own process the `nth` time that it comes to `point`."""

    def __init__(self, point: str, nth: int) -> None:
        self._point = point
        self._left = nth

    def __call__(self, point: CrashPoint) -> None:
        if point == self._point:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


async def spend(ledger: SpendLedger, upstream: int, worker: str, dice: random.Random, *, most: int) -> None:
    """One request after the other, as the client does it, until the budget refuses one."""
    for number in range(1, most + 1):
        name = f"{os.getpid()}-{worker}-{number}"
        try:
            entry = await ledger.reserve(
                request_id=name, model="m", tenant="t", upper=Usage(0, RESERVE_TOKENS)
            )
        except BudgetExceeded:
            return
        choice = dice.random()
        if choice < 0.1:
            ledger.release(entry)
            continue
        used = dice.randint(1, RESERVE_TOKENS)
        os.write(upstream, f"{name} {used}\n".encode())
        await asyncio.sleep(0)
        if choice < 0.2:
            ledger.billed_unknown(entry)
        else:
            ledger.settle(entry, Usage(0, used))


async def main(arguments: list[str]) -> None:
    ledger_path, log_path, point, nth, concurrency, seed, most = arguments
    upstream = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    hook = Killer(point, int(nth))
    # What the test asks for is chance that can be repeated.
    dice = random.Random(int(seed))  # noqa: S311
    ledger = SpendLedger(Path(ledger_path), prices=PRICES, plan=PLAN, clock=FixedDay(), crash_hook=hook)
    print("ready", flush=True)
    sys.stdin.read()
    workers = (spend(ledger, upstream, str(n), dice, most=int(most)) for n in range(int(concurrency)))
    await asyncio.gather(*workers)
    ledger.close()
    db = open_ledger(Path(ledger_path), busy_timeout_s=5)
    prune(db, now_s=NOW_S + 2 * KEEP_ENTRIES_S, crash_hook=hook)
    db.close()


class FixedDay:
    """The machine's clock, but always the same day, so that all runs of a test share one budget."""

    def __init__(self) -> None:
        self._clock = SystemClock()
        self.monotonic = self._clock.monotonic
        self.call_at = self._clock.call_at
        self.sleep_until = self._clock.sleep_until

    def wall(self) -> float:
        return NOW_S


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))

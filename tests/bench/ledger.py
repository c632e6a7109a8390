"""What the ledger costs a request: `python -m tests.bench.ledger`.

A request is reserve, sent and settle, checked against three budgets. The baseline is the same made plainly: three
SQLite transactions of one statement each, as durable (WAL, synchronous = NORMAL), without budgets.
"""

import asyncio
import sqlite3
import tempfile
import time
from pathlib import Path

import uvloop

from ai_client.contract.request import Usage
from ai_client.ledger.budgets import ALL_TENANTS, Budget, BudgetPlan, Span
from ai_client.ledger.ledger import SpendLedger
from ai_client.ledger.prices import Prices
from ai_client.settings import LIST_PRICES

REQUESTS = 20_000
CONCURRENCY = (1, 5, 50, 500)
LARGE = 10**18
PLAN = BudgetPlan(
    budgets=(
        Budget(ALL_TENANTS, Span.DAY, LARGE),
        Budget(ALL_TENANTS, Span.MONTH, LARGE),
        Budget("team", Span.DAY, LARGE),
    )
)


def plain(path: Path) -> float:
    """CPU µs a request of the plain way."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute(
        "CREATE TABLE entry(id INTEGER PRIMARY KEY, fate INTEGER, model TEXT, tenant TEXT, nusd INTEGER)"
    )
    started_s = time.process_time()
    for number in range(1, REQUESTS + 1):
        db.execute("INSERT INTO entry VALUES(?, 0, 'gpt-4.1', 'team', 100)", (number,))
        db.execute("UPDATE entry SET fate = 4 WHERE id = ?", (number,))
        db.execute("UPDATE entry SET fate = 1, nusd = 50 WHERE id = ?", (number,))
    cpu_s = time.process_time() - started_s
    db.close()
    return cpu_s / REQUESTS * 1e6


async def spend(ledger: SpendLedger, *, concurrency: int) -> tuple[float, float]:
    """CPU and wall µs a request, so many at once."""

    async def worker(requests: int) -> None:
        for _ in range(requests):
            entry = await ledger.reserve(
                request_id="0123456789ab-1", model="gpt-4.1", tenant="team", upper=Usage(150, 500)
            )
            ledger.settle(entry, Usage(120, 80))

    each = REQUESTS // concurrency
    cpu_started_s, started_s = time.process_time(), time.perf_counter()
    await asyncio.gather(*(worker(each) for _ in range(concurrency)))
    count = each * concurrency
    return (time.process_time() - cpu_started_s) / count * 1e6, (
        time.perf_counter() - started_s
    ) / count * 1e6


async def measure(path: Path) -> list[tuple[int, float, float]]:
    ledger = SpendLedger(path, prices=Prices.from_settings(LIST_PRICES), plan=PLAN)
    rows = [(concurrency, *await spend(ledger, concurrency=concurrency)) for concurrency in CONCURRENCY]
    ledger.close()
    return rows


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        baseline_us = plain(Path(name) / "plain.sqlite")
        rows = uvloop.run(measure(Path(name) / "ledger.sqlite"))
    print(f"{'':32}{'CPU µs':>10}{'wall µs':>10}{'× plain':>10}")
    print(f"{'three plain transactions':32}{baseline_us:10.1f}{'':10}{1:10.2f}")
    for concurrency, cpu_us, wall_us in rows:
        print(
            f"{f'ledger, {concurrency} at once':32}{cpu_us:10.1f}{wall_us:10.1f}{cpu_us / baseline_us:10.2f}"
        )


if __name__ == "__main__":
    main()

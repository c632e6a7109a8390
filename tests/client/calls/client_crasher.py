"""A program that sends chat requests through the client until it is killed at a crash point of the ledger.

python client_crasher.py LEDGER BASE_URL POINT NTH CONCURRENCY
"""

import asyncio
import sys
from pathlib import Path

from ai_client.client import AIAPIClient
from ai_client.errors import BudgetExceeded
from ai_client.ledger.budgets import ALL_TENANTS, Budget, BudgetPlan, Span
from ai_client.ledger.ledger import SpendLedger
from tests.client.ledger.ledger_crasher import PRICES, TOKEN_NUSD, FixedDay, Killer

BUDGET_NUSD = 4_000 * TOKEN_NUSD
PLAN = BudgetPlan(budgets=(Budget(ALL_TENANTS, Span.DAY, BUDGET_NUSD),))


async def main(arguments: list[str]) -> None:
    ledger_path, base_url, point, nth, concurrency = arguments
    hook = Killer(point, int(nth))
    ledger = SpendLedger(Path(ledger_path), prices=PRICES, plan=PLAN, clock=FixedDay(), crash_hook=hook)
    client = AIAPIClient(
        "hs_test_crash",
        base_url=base_url,
        max_concurrent=int(concurrency),
        requests_per_minute=None,
        ledger=ledger,
    )

    async def worker() -> None:
        while True:
            try:
                messages = [{"role": "user", "content": "Hello"}]
                await client.chat_completion(messages, model="m", tenant="t", max_tokens=100)
            except BudgetExceeded:
                return

    await asyncio.gather(*(worker() for _ in range(int(concurrency))))
    await client.aclose()
    ledger.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))

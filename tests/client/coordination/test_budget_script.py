"""The script of shared budgets on a real engine does what the model does, call by call."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import redis

from ai_client.coordination.budget_books import KEPT_PERIODS, BudgetBooks
from ai_client.coordination.budget_protocol import MOST_LIMIT, NO_LIMIT, BudgetAnswer, BudgetRequest, Wish
from ai_client.coordination.budget_wire import SCRIPT, BudgetKeys, arguments, parse
from tests.client.coordination.test_script import run_of

_STEPS = 500
_KEYS = BudgetKeys("account")


class _Hosts:
    """Random calls, most of them such as hosts make, some such as none does."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - calls, not secrets
        self.known: dict[str, tuple[BudgetRequest, BudgetAnswer]] = {}
        self.count = 0

    def next(self) -> BudgetRequest:
        pick = self.random
        self.count += 1
        host = f"h{pick.randint(0, 5)}"
        before = self.known.get(host)
        asked, answer = before if before else (None, None)
        ledger = asked.ledger if asked and pick.random() < 0.97 else f"{host}.{pick.random()}"
        reports = bool(answer and answer.is_recovering)
        names = ["h6"] if pick.random() < 0.01 else list(self.known)
        return BudgetRequest(
            host=host,
            ledger=ledger,
            nonce=f"{host}.{self.count}",
            epoch=answer.epoch if answer and pick.random() < 0.97 else "",
            ack=answer.order if answer else 0,
            version=answer.version - pick.choice([0, 0, 0, 1]) if answer else 0,
            is_settled=bool(answer and answer.is_settled and pick.random() < 0.9),
            has_waited=pick.random() < 0.05,
            reports=reports,
            roster=tuple(sorted({*names, host})) if reports else (),
            wishes=tuple(self._wish(scope) for scope in ("*", "web") if pick.random() < 0.9),
        )

    def _wish(self, scope: str) -> Wish:
        pick = self.random
        limit = pick.choice([NO_LIMIT, 1_000, 1_000, 1_000, 800, MOST_LIMIT])
        granted = pick.choice([0, 0, pick.randint(0, 300), 2 * 10**14])
        returned = pick.randint(0, granted)
        period = pick.choice(["2026-11-28", "2026-11-29", "2026-11"])
        used = pick.randint(0, granted - returned)
        return Wish(scope, period, limit, granted, returned, used, pick.choice([0, 50, 400, MOST_LIMIT]))

    def said(self, request: BudgetRequest, answer: BudgetAnswer) -> None:
        self.known[request.host] = (request, answer)


def _call(link: redis.Redis, request: BudgetRequest) -> BudgetAnswer:
    script = link.register_script(SCRIPT)
    return parse(script(keys=_KEYS.of(request.wishes), args=arguments(request)))


@pytest.mark.parametrize("seed", range(8))
def test_the_script_answers_as_the_model_does(link: redis.Redis, seed: int) -> None:
    """Joins, reports, other ledgers, hosts that are forgotten, and books of another process."""
    books, hosts, run = BudgetBooks(), _Hosts(seed), run_of(link)
    seen = set()
    for step in range(_STEPS):
        if step % 150 == 149:
            link.execute_command("REPLICAOF", "127.0.0.1", "1")
            link.execute_command("REPLICAOF", "NO", "ONE")
            run = run_of(link)
        if step % 40 == 39:
            for gone in ("h3", "h6"):
                books.forget(gone)
                link.register_script(SCRIPT)(keys=_KEYS.of(()), args=[gone, ""])
        request = hosts.next()
        expected = books.call(run, request)
        assert _call(link, request) == expected, f"seed {seed}, step {step}: {request}"
        seen.add((expected.is_recovering, expected.is_settled))
        hosts.said(request, expected)
    assert len(seen) == 4


def test_old_periods_are_forgotten(link: redis.Redis) -> None:
    """The oldest of many; what is left is as in the model."""
    books, run = BudgetBooks(), run_of(link)
    first = _Hosts(1).next()
    for number in range(KEPT_PERIODS + 3):
        for scope in ("*", "web"):
            wish = Wish(scope, f"2026-{number:05}", 100, 10, 0, 5, 20)
            request = replace(first, nonce=f"{number}.{scope}", wishes=(wish,))
            assert _call(link, request) == books.call(run, request)
    kept = [key for key in link.scan_iter() if b".budgets.*.2026-" in key]
    assert len(kept) == KEPT_PERIODS

"""The script of shared budgets on a real engine does what the model does, call by call."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import redis

from ai_client.coordination.budget_books import KEPT_PERIODS, BudgetBooks
from ai_client.coordination.budget_protocol import (
    MOST_LIMIT,
    NO_LIMIT,
    BudgetAnswer,
    BudgetRequest,
    Holding,
    Wish,
)
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
        want, mark = pick.choice([0, 50, 400, MOST_LIMIT]), pick.choice(["", "0.8@1000", "1@1000"])
        return Wish(scope, period, limit, granted, returned, used, want, pick.randint(0, used), mark)

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
        if step % 60 == 59 and books.budgets:
            lost = hosts.random.choice(sorted(books.budgets))
            del books.budgets[lost]
            link.delete(_KEYS.of((Wish(*lost, 0, 0, 0, 0, 0),))[2])
        request = hosts.next()
        expected = books.call(run, request)
        assert _call(link, request) == expected, f"seed {seed}, step {step}: {request}"
        seen.add((expected.is_recovering, expected.is_settled))
        hosts.said(request, expected)
    assert len(seen) == 4


def _request(host: str, answer: BudgetAnswer | None, wish: Wish, *, waited: bool = False) -> BudgetRequest:
    """As a host makes it that has written down all it was told."""
    return BudgetRequest(
        host=host,
        ledger=f"ledger of {host}",
        nonce=f"{host}.{0 if answer is None else answer.order}",
        epoch="" if answer is None else answer.epoch,
        ack=0 if answer is None else answer.order,
        version=0 if answer is None else answer.version,
        is_settled=answer is not None and answer.is_settled,
        has_waited=waited,
        reports=answer is not None and answer.is_recovering,
        roster=("a", "b") if answer is not None and answer.is_recovering else (),
        wishes=(wish,),
    )


class _Two:
    """Hosts a and b, that share a budget of 100 and are settled."""

    def __init__(self, link: redis.Redis) -> None:
        self.link = link
        self.answers: dict[str, BudgetAnswer] = {}
        while not all(host in self.answers and self.answers[host].is_settled for host in "ab"):
            for host in "ab":
                self.call(host, want=0, waited=True)

    def call(self, host: str, *, want: int, spent: int = 0, mark: str = "", waited: bool = False) -> Holding:
        before = self.answers.get(host)
        granted = before.holdings[0].granted if before else 0
        wish = Wish("*", "2026-11", 100, granted, 0, spent, want, spent, mark)
        self.answers[host] = answer = _call(self.link, _request(host, before, wish, waited=waited))
        return answer.holdings[0]


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_nothing_is_granted_twice_where_the_engine_evicted_a_key(link: redis.Redis, lost: int) -> None:
    """The account, the roster, or the budget's book: whichever is gone, each host says first what it holds."""
    two = _Two(link)
    assert two.call("a", want=90).granted == 90
    link.delete(_KEYS.of((Wish("*", "2026-11", 0, 0, 0, 0, 0),))[lost])
    assert [two.call("b", want=50).granted for _ in range(4)] == [0, 0, 0, 0]
    for _ in range(3):
        two.call("a", want=90)
        two.call("b", want=50)
    assert {host: answer.holdings[0].granted for host, answer in two.answers.items()} == {"a": 90, "b": 10}


def test_one_host_tells_what_all_have_spent(link: redis.Redis) -> None:
    """Whoever asks first, and the same one where it asks again; another threshold is another's."""
    two = _Two(link)
    two.call("a", want=50)
    two.call("b", want=50)
    assert two.call("a", want=50, spent=45).spent == 45
    assert two.call("b", want=50, spent=40).spent == 85
    told = [two.call(host, want=50, spent=40, mark="0.8@100").teller for host in "baab"]
    assert told == ["b"] * 4
    assert two.call("a", want=50, spent=40, mark="1@100").teller == "a"
    assert two.call("a", want=50, spent=40).teller == ""


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

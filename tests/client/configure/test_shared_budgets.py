"""What a host says of budgets that it shares, and which alerts of them it tells."""

from __future__ import annotations

from ai_client.configure.shared_budgets import Borrower
from ai_client.coordination.budget_protocol import BudgetAnswer, BudgetTerms, Holding
from ai_client.ledger.allowance import OnFile, Standing
from ai_client.ledger.budgets import Budget, Span
from ai_client.ledger.lending import Lending
from ai_client.ledger.prices import NANO_PER_DOLLAR


class _Host:
    """Host h, that declares a budget of $5 a day and has spent none of it."""

    def __init__(self) -> None:
        lending = Lending((Budget("*", Span.DAY, 5 * NANO_PER_DOLLAR),))
        self.borrower = Borrower("h", lending, instance="i", terms=BudgetTerms(), alert_shares=(0.8, 1.0))
        (self.key,) = lending.keys(0.0)

    def call(self, *, limit_usd: int = 5, spent_usd: float = 0, teller: str = "") -> tuple[str, list[float]]:
        """What it marks in a call that is answered so, and the thresholds that it tells then."""
        standings = {self.key: Standing(*self.key, 0, 0, 0, 0)}
        found = OnFile("ledger", ("h",), is_settled=True, standings=standings)
        self.borrower.plan(found, {}, now_ms=0, wall_s=0.0)
        request = self.borrower.request(found, now_ms=0)
        limit, spent = limit_usd * NANO_PER_DOLLAR, int(spent_usd * NANO_PER_DOLLAR)
        holding = Holding(0, 0, 0, limit, is_hungry=False, spent=spent, teller=teller)
        answer = BudgetAnswer("e", 1, 1, True, False, 0, None, (holding,))
        self.borrower.answered(answer, now_ms=0)
        return request.wishes[0].mark, [alert.share for alert in self.borrower.to_tell(answer)]


def test_a_host_says_that_another_declares_less_of_a_shared_budget() -> None:
    """The smaller one rules: whoever set the larger one would not know why it is refused."""
    host = _Host()
    host.call(limit_usd=2)
    assert host.borrower.trouble() == (
        "another host declares $2, this one $5 as the budget of all: the smaller rules until its period ends; "
        "declare the same on all hosts"
    )
    host.call()
    assert host.borrower.trouble() is None


def test_a_threshold_is_told_by_the_host_that_the_books_name() -> None:
    """Each is marked once, whoever tells it, and a limit that is raised has thresholds of its own."""
    host = _Host()
    assert host.call(spent_usd=3.9) == ("", [])
    assert host.call(spent_usd=4.0) == ("", [])
    assert host.call(spent_usd=4.1, teller="h") == ("0.8@5000000000", [0.8])
    assert host.call(spent_usd=5.0) == ("", [])
    assert host.call(spent_usd=5.0, teller="another") == ("1@5000000000", [])
    assert host.call(limit_usd=6, spent_usd=5.0) == ("", [])
    assert host.call(limit_usd=6, spent_usd=5.0, teller="h") == ("0.8@6000000000", [0.8])
    assert host.call(limit_usd=6, spent_usd=5.0) == ("", [])

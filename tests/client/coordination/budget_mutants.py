"""Rules of shared budgets, each left out or broken: the simulation finds every one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ai_client.coordination.budget_books import BudgetBook, BudgetBooks, Fellow
from ai_client.coordination.budget_protocol import BudgetRequest, BudgetTerms, Holding, Wish
from ai_client.ledger.allowance import BudgetKey
from tests.client.coordination.budget_host import File

_account = BudgetBooks._account
_take = File.take


def forgets_what_it_spent(file: File) -> None:
    for row in file.rows.values():
        row.spent = 0


def forgets_what_it_gave_back(file: File) -> None:
    for row in file.rows.values():
        row.returned = 0


def takes_the_newest_word(books: BudgetBooks, fellow: Fellow, request: BudgetRequest, wish: Wish) -> Holding:
    """Whatever comes last replaces what is booked, also where it was long on its way."""
    entry = books._book(wish).entries.get(request.host)
    if entry is not None:
        entry.granted, entry.returned = wish.granted, wish.returned
    return _account(books, fellow, request, wish)


def counts_returns_twice(books: BudgetBooks, fellow: Fellow, request: BudgetRequest, wish: Wish) -> Holding:
    holding = _account(books, fellow, request, wish)
    entry = books._book(wish).entries[request.host]
    entry.returned = min(entry.granted, entry.returned + wish.returned)
    return holding


def grants_anew(books: BudgetBooks, fellow: Fellow, request: BudgetRequest, wish: Wish) -> Holding:
    """What was granted is told and not booked."""
    before = books._book(wish).entries.get(request.host)
    granted = 0 if before is None else before.granted
    holding = _account(books, fellow, request, wish)
    books._book(wish).entries[request.host].granted = max(granted, wish.granted)
    return holding


def settles_alone(_books: BudgetBooks, fellow: Fellow) -> None:
    """Nobody needs to know that it came."""
    fellow.is_settled = True


def takes_no_roster(
    file: File,
    grants: Mapping[BudgetKey, tuple[int, int]],
    *,
    ledger: str,
    roster: Sequence[str] | None,
    is_settled: bool,
) -> None:
    _take(file, grants, ledger=ledger, roster=None if roster is None else (), is_settled=is_settled)


def reports_without_amounts(
    books: BudgetBooks, fellow: Fellow, request: BudgetRequest, wish: Wish
) -> Holding:
    """The books believe themselves alone."""
    return _account(books, fellow, request, replace(wish, granted=0, returned=0, used=0))


#: A seed that finds it, and what is put in place of what.
Mutant = tuple[int, type[Any], str, object]
MUTANTS: dict[str, Mutant] = {
    "forgets what it spent": (0, File, "crashed", forgets_what_it_spent),
    "tells what it gives back before it is written": (144, File, "crashed", forgets_what_it_gave_back),
    "takes the newest word": (13, BudgetBooks, "_account", takes_the_newest_word),
    "books no grant": (2, BudgetBooks, "_account", grants_anew),
    "counts returns twice": (0, BudgetBooks, "_account", counts_returns_twice),
    "grants after a failover": (
        0,
        BudgetBooks,
        "is_recovering",
        property(lambda _: False, lambda _, __: None),
    ),
    "waits for nobody's report": (0, BudgetBooks, "_missing", lambda _: 0),
    "takes no host's word": (5, BudgetBooks, "_account", reports_without_amounts),
    "settles alone": (176, BudgetBooks, "_settle", settles_alone),
    "writes no roster": (22, File, "take", takes_no_roster),
    "founds at once": (5, BudgetTerms, "founding_ms", 0),
    "forgets replaced ledgers": (
        9,
        BudgetBook,
        "out",
        property(lambda book: sum(entry.granted - entry.returned for entry in book.entries.values())),
    ),
}

"""What a call really cost, told after its whole reserve was booked: by whoever reads its answer later."""

import sqlite3
from collections.abc import Callable, Iterable
from typing import Final

from msgspec import Struct

from ai_client.contract.request import Usage
from ai_client.contract.stores import EntryId
from ai_client.ledger.owner import Fate
from ai_client.ledger.prices import Price
from ai_client.ledger.schema import MOST_NUSD, MOST_TOKENS
from ai_client.ledger.totals import Totals

_BOOKED: Final = "SELECT day, tenant, cost_nusd FROM entry WHERE id = ? AND request_id = ? AND fate = ?"
_CORRECT: Final = (
    "UPDATE entry SET fate = ?, cost_nusd = ?, input_tokens = ?, output_tokens = ?, cached_input_tokens = ?"
    " WHERE id = ?"
)


class Correction(Struct, frozen=True):
    """What is to be booked of an entry; `request_id` is that of its call."""

    entry: int
    request_id: str
    cost_nusd: int
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int


def correct(db: sqlite3.Connection, totals: Totals, corrections: Iterable[Correction]) -> None:
    """Books each in place of its reserve, on the reserve's day. Idempotent: an entry is corrected once.

    One that was summed up with its day (`upkeep.KEEP_ENTRIES_S`) stays booked whole.
    """
    for each in corrections:
        booked = db.execute(_BOOKED, (each.entry, each.request_id, Fate.BILLED_UNKNOWN)).fetchone()
        if booked is None:
            continue
        day, tenant, before_nusd = booked
        row = (each.cost_nusd, each.input_tokens, each.output_tokens, each.cached_input_tokens, each.entry)
        db.execute(_CORRECT, (Fate.SETTLED, *row))
        totals.stand(day, tenant).add(held_nusd=0, spent_nusd=each.cost_nusd - before_nusd)


class LateBookings:
    """Corrections that wait for a commit, one an entry."""

    def __init__(self) -> None:
        self._waiting: dict[EntryId, Correction] = {}

    def add(self, entry: EntryId, request_id: str, price: Price, usage: Usage) -> None:
        """What the call really used, within what a row can hold."""
        self._waiting[entry] = Correction(
            entry,
            request_id,
            min(price.cost_nusd(usage), MOST_NUSD),
            min(usage.input_tokens, MOST_TOKENS),
            min(usage.output_tokens, MOST_TOKENS),
            min(usage.cached_input_tokens, MOST_TOKENS),
        )

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def commit(self, book: Callable[[Iterable[Correction]], None]) -> sqlite3.Error | None:
        """Has `book` take them; with the error that it raises they wait on."""
        try:
            if self._waiting:
                book(self._waiting.values())
        except sqlite3.Error as error:
            return error
        self._waiting.clear()
        return None

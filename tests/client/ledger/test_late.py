"""What was booked whole, and is told later: booked as it was, once, on the day of its reserve."""

from ai_client.contract.request import Usage
from ai_client.contract.stores import EntryId
from ai_client.ledger.book import survive
from ai_client.ledger.ledger import SpendLedger
from ai_client.ledger.schema import open_ledger
from ai_client.ledger.upkeep import KEEP_ENTRIES_S, prune
from tests.client.ledger.ledger_stage import Stage, dollar_plan, reserve

USED = Usage(500, 1_500)


def amend(ledger: SpendLedger, entry: EntryId, usage: Usage = USED, *, request_id: str = "r") -> None:
    ledger.amend(entry, request_id=request_id, model="m", usage=usage)
    ledger.flush()


async def test_the_reserve_becomes_what_was_used(stage: Stage) -> None:
    """Five dollars were booked, two were used; whoever tells it again changes nothing."""
    ledger = stage.ledger()
    entry = await reserve(ledger, 5)
    ledger.billed_unknown(entry)
    amend(ledger, entry)
    assert stage.totals() == {"team-a": (0, 2)}
    amend(ledger, entry, Usage(0, 9_000))
    assert stage.totals() == stage.totals("2026-11") == {"team-a": (0, 2)}
    row = "SELECT fate, cost_nusd, input_tokens, output_tokens FROM entry"
    assert stage.rows(row) == [(1, 2 * 10**9, 500, 1_500)]


async def test_what_was_given_back_may_be_spent_again(stage: Stage) -> None:
    """By another process, the next day's start included; it is the first day's money."""
    ledger = stage.ledger(dollar_plan(monthly=5))
    entry = await reserve(ledger, 5)
    ledger.billed_unknown(entry)
    ledger.close()
    stage.clock.advance(86_400)
    after = stage.ledger(dollar_plan(monthly=5))
    amend(after, entry)
    assert stage.totals("2026-11-24") == {"team-a": (0, 2)}
    after.release(await reserve(after, 3))


async def test_what_is_another_calls_or_was_told_already_stays(stage: Stage) -> None:
    """An entry's number alone is no proof, and what was settled, given back or is under way is no guess."""
    ledger = stage.ledger()
    unknown, settled, released, open_entry = [await reserve(ledger, 5) for _ in range(4)]
    ledger.billed_unknown(unknown)
    ledger.settle(settled, Usage(0, 4_000))
    ledger.release(released)
    amend(ledger, unknown, request_id="another")
    for entry in (settled, released, open_entry, EntryId(99)):
        amend(ledger, entry)
    assert stage.totals() == {"team-a": (5, 9)}


async def test_what_was_summed_up_by_day_stays_booked_whole(stage: Stage) -> None:
    """After five weeks nobody asks any more."""
    ledger = stage.ledger()
    entry = await reserve(ledger, 5)
    ledger.billed_unknown(entry)
    ledger.settle(await reserve(ledger, 1), USED)
    ledger.close()
    db = open_ledger(stage.path, busy_timeout_s=1)
    assert prune(db, now_s=stage.clock.wall() + KEEP_ENTRIES_S + 1, crash_hook=survive) == 1
    db.close()
    after = stage.ledger()
    assert stage.rows("SELECT count(*) FROM entry WHERE id = ?", entry) == [(0,)]
    amend(after, entry)
    assert stage.totals("2026-11-24") == {"team-a": (0, 7)}

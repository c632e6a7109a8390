"""Waiting for a ledger whose clock is driven by hand, while its upkeep's thread may hold the file's lock."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from ai_client.contract.stores import EntryId
from ai_client.ledger.ledger import SpendLedger
from ai_client.platform.clock import ManualClock

_TURNS = 20


async def granted(request: Coroutine[Any, Any, EntryId], ledger: SpendLedger) -> EntryId:
    """The reserve's result. The clock moves only where the ledger waits to try for the lock again."""
    task = asyncio.ensure_future(request)
    try:
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        while not task.done():
            clock = ledger._clock
            assert isinstance(clock, ManualClock)
            clock.advance(0.001)
            # Gives the thread that holds the lock its turn.
            await asyncio.to_thread(lambda: None)
    except asyncio.CancelledError:
        task.cancel()
        raise
    return await task

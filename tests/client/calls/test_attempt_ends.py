"""Whatever fails at the end of an attempt, its place is free again."""

from __future__ import annotations

from pathlib import Path

import pytest

from ai_client import AIAPIClient, Request
from ai_client.contract.request import Usage
from ai_client.contract.stores import EntryId
from ai_client.ledger.ledger import SpendLedger
from ai_client.ledger.prices import Prices
from ai_client.settings import LIST_PRICES
from ai_client.testing import Simulator

CHAT = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}


class BrokenLedger(SpendLedger):
    """One whose endings can't be written."""

    def settle(self, entry: EntryId, usage: Usage) -> float:
        raise OverflowError("too large to convert")

    def billed_unknown(self, entry: EntryId, most: Usage | None = None) -> None:
        raise OverflowError("too large to convert")


async def test_a_ledger_that_raises_holds_no_place(tmp_path: Path) -> None:
    """Three places and ten requests: the tenth is answered as the first is."""
    ledger = BrokenLedger(tmp_path / "ledger.sqlite", prices=Prices.from_settings(LIST_PRICES))
    async with (
        Simulator() as simulator,
        AIAPIClient("hs_test_0123456789", simulator.base_url, max_concurrent=3, ledger=ledger) as client,
    ):
        for _ in range(10):
            with pytest.raises(OverflowError):
                await client.send(Request(endpoint="chat/completions", body=CHAT, deadline_s=5.0))
        assert client.get_stats()["in_flight"] == 0
    ledger.close()

"""Entries of the ledger in memory: those that wait to be granted, those in flight, and counts of them."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from msgspec import Struct, structs

from ai_client.contract.request import UNTOLD_REGION, Usage
from ai_client.contract.stores import EntryId
from ai_client.ledger.book import Ask, Ending
from ai_client.ledger.owner import Fate
from ai_client.ledger.prices import Price
from ai_client.ledger.schema import MOST_NUSD, MOST_TOKENS

# What is no tier that answered.
_SILENT: Final = frozenset(("", "auto"))


def tags_text(tags: Mapping[str, str]) -> str:
    """As the ledger's file has them."""
    return json.dumps(dict(tags), sort_keys=True, separators=(",", ":"))


class EntryInFlight(Struct):
    """An entry in flight. Without a file behind it (`is_booked` false) only its price is of use."""

    price: Price
    tenant: str
    reserved_nusd: int
    #: The tier of service that was asked for, "" where the provider may choose.
    tier: str = ""
    #: The place that was asked for.
    region: str = ""
    day: str = ""
    slot: int | None = None
    is_booked: bool = False

    def cost_nusd(self, usage: Usage) -> int:
        """What it cost. Who tells no tier may have served the one that was asked for (Fireworks), if that is dearer.

        So of the place, but for one that nobody asked for.
        """
        if self.region and not usage.region and self.region != UNTOLD_REGION:
            usage = structs.replace(usage, region=self.region)
        cost = self.price.cost_nusd(usage)
        if self.tier and usage.tier in _SILENT:
            cost = max(cost, self.price.cost_nusd(structs.replace(usage, tier=self.tier)))
        return cost

    def ending(self, entry: EntryId, fate: Fate, nusd: int, usage: Usage) -> Ending:
        """What is to be booked of it, within what a row can hold."""
        return Ending(
            entry,
            self.day,
            self.tenant,
            self.reserved_nusd,
            fate,
            min(nusd, MOST_NUSD),
            min(usage.input_tokens, MOST_TOKENS),
            min(usage.output_tokens, MOST_TOKENS),
            min(usage.cached_input_tokens, MOST_TOKENS),
            slot=self.slot,
        )


class WaitingReserve(Struct, eq=False):
    """A reserve that the next commit grants or refuses; `granted` gets its entry."""

    ask: Ask
    open_entry: EntryInFlight
    since_s: float
    granted: asyncio.Future[EntryId]
    #: A refusal is believed once dead owners have given back what they held.
    is_second_try: bool = False


@dataclass(frozen=True, slots=True)
class LedgerStats:
    """Counts since the start. `unbooked` entries were let through while the file could not be written."""

    open_entries: int
    refused: int
    unbooked: int
    errors: int
    #: Whether the file can be written.
    is_open: bool = True

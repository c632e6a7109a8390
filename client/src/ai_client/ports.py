"""What the client needs of a cache and a ledger. `cache.py` and `ledger.py` are the implementations.

All calls but `reserve` are synchronous and short: they run on the event loop of the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NewType, Protocol

from msgspec import Struct

from ai_client.request import Request, Usage

#: Names one entry of the ledger.
EntryId = NewType("EntryId", int)


class CachedResponse(Struct, frozen=True, kw_only=True):
    """A whole, successful answer. Of a stream, `body` is the raw SSE text with its end marker."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    model: str
    stream: bool = False
    usage: Usage | None = None


class Cache(Protocol):
    """Never raises for trouble of its own: it then answers None, drops what is put, and counts that."""

    def key(self, request: Request, tenant: str) -> str:
        """The canonical key of everything that can change the answer, the tenant included."""
        ...

    def get(self, key: str) -> CachedResponse | None:
        """The entry, if there is one that has not expired."""
        ...

    def put(self, key: str, response: CachedResponse, *, ttl_s: float) -> None:
        """Keeps the entry for `ttl_s`; evicts others where the size bound asks for it."""
        ...

    def close(self) -> None: ...


class Ledger(Protocol):
    """An entry goes reserve → settle | billed_unknown, or reserve → release where nothing was sent.

    Each attempt that is sent upstream is an entry of its own. It may be billed from its reserve on.
    """

    async def reserve(
        self, *, request_id: str, model: str, tenant: str, upper: Usage, tags: Mapping[str, str]
    ) -> EntryId:
        """Sets aside what `upper` tokens cost at most; durable when it returns. Raises BudgetExceeded."""
        ...

    def settle(self, entry: EntryId, usage: Usage) -> float:
        """Books what was used in place of the reserve; the cost in US dollars."""
        ...

    def release(self, entry: EntryId) -> None:
        """Nothing was sent, or the upstream refused it unbilled: the reserve is given back."""
        ...

    def billed_unknown(self, entry: EntryId) -> None:
        """It was sent and no usage came back: the whole reserve stays booked, marked as unknown."""
        ...

    def close(self) -> None: ...

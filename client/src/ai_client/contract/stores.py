"""What the client needs of a cache and a ledger. `cache/` and `ledger/` hold the implementations.

All calls but `reserve` are synchronous and short: they run on the event loop of the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NewType, Protocol

from msgspec import Struct

from ai_client.contract.request import Request, Usage

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
    #: Whoever puts it has read the whole body and found that it is an answer; it is not read for that again.
    is_judged: bool = False


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


class Unbounded(Struct, frozen=True):
    """What of a request has no bound or no price: its field, why, and what helps."""

    param: str
    reason: str
    remedy: str = "Leave the field out, or ask the operator for a tenant without a hard budget."


class Ledger(Protocol):
    """An entry goes reserve → settle | billed_unknown, or reserve → release where nothing was sent.

    Each attempt that is sent upstream is an entry of its own. It may be billed from its reserve on.
    """

    async def reserve(
        self, *, request_id: str, model: str, tenant: str, upper: Usage, tags: Mapping[str, str]
    ) -> EntryId:
        """Sets aside what `upper` tokens cost at most; durable when it returns. Raises BudgetExceeded."""
        ...

    def is_hard(self, tenant: str) -> bool:
        """Whether a hard budget holds for the tenant, so that nothing may go out whose cost has no bound."""
        ...

    def unpriced(self, model: str, upper: Usage) -> Unbounded | None:
        """What of such a call has no price; None where all has."""
        ...

    def settle(self, entry: EntryId, usage: Usage) -> float:
        """Books what was used in place of the reserve; the cost in US dollars."""
        ...

    def release(self, entry: EntryId) -> None:
        """Nothing was sent, or the upstream refused it unbilled: the reserve is given back."""
        ...

    def billed_unknown(self, entry: EntryId, most: Usage | None = None) -> None:
        """It was sent and no usage came back: what `most` costs is booked, at most the reserve, marked as unknown.

        None: nothing is known, and the whole reserve stays booked.
        """
        ...

    def amend(self, entry: EntryId, *, request_id: str, model: str, usage: Usage) -> None:
        """What was used of an entry that was booked as unknown is known now. Idempotent."""
        ...

    def close(self) -> None: ...


class Home(Struct, frozen=True, kw_only=True):
    """Where something that an upstream keeps was made, and for whom."""

    upstream: str
    key_fingerprint: str
    tenant: str
    #: What its making was booked under, where it was: the entry, and the call's id and model.
    entry: int = 0
    request_id: str = ""
    model: str = ""


class Homes(Protocol):
    """Where stored things lie, by their ids (`resp_…`, `file-…`). Never raises for trouble of its own."""

    def note(self, stored_id: str, home: Home) -> None:
        """It was made there. Durable when it returns."""
        ...

    def find(self, stored_id: str) -> Home | None:
        """Where it lies; None where that is not known."""
        ...

    def forget(self, stored_id: str) -> None:
        """It is gone."""
        ...

    def close(self) -> None: ...

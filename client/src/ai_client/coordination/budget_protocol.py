"""What hosts and the books of shared budgets say to each other. All amounts are whole nano-dollars.

A budget is a scope (a tenant, or `*` for all) in a period (`2026-11-29` or `2026-11`). What a host was granted of it
and what it gave back only ever grow within the period, so whatever is lost, late or told twice changes nothing. A host
*holds* `granted - returned`, and never uses more. The *roster* is the list of hosts that may have been granted
something; a host is *settled* once it may be (docs/adr/0033).
"""

from __future__ import annotations

from dataclasses import dataclass

#: A host that says so has no word on the limit: it only reports what it holds.
NO_LIMIT = -1
#: Numbers of the engine's scripts are exact up to 2^53.
MOST_LIMIT = 4 * 10**15


@dataclass(frozen=True, slots=True)
class BudgetTerms:
    """Times of the host's own clock that goes on while it is suspended."""

    #: Between two calls; and of a host that wants more, or is to report.
    call_ms: int = 5_000
    want_ms: int = 1_000
    #: Books that know no settled host wait so long for one: longer than a host needs to notice new books and call.
    founding_ms: int = 20_000


@dataclass(frozen=True, slots=True)
class Wish:
    """How a host stands in one budget, and what it would like to hold."""

    scope: str
    period: str
    #: As declared on this host, or NO_LIMIT.
    limit: int
    granted: int
    returned: int
    #: Spent, and set aside for calls in flight.
    used: int
    want: int
    #: Without what is in flight.
    spent: int = 0
    #: A threshold that all hosts have passed, which this one is ready to tell; "" for none.
    mark: str = ""


@dataclass(frozen=True, slots=True)
class BudgetRequest:
    """One call of a host."""

    host: str
    #: Names the host's ledger: another one knows nothing of what this one was granted.
    ledger: str
    #: Of no other call.
    nonce: str
    #: The books of the last answer, its order, and the roster of theirs that is written down.
    epoch: str
    ack: int
    version: int
    is_settled: bool
    #: Whether an answer of this epoch came at least `founding_ms` ago.
    has_waited: bool
    #: Whether this is a report: the roster, and all that is held in any period.
    reports: bool
    roster: tuple[str, ...]
    wishes: tuple[Wish, ...]


@dataclass(frozen=True, slots=True)
class Holding:
    """How the host stands in one budget now, and how the fleet does."""

    granted: int
    returned: int
    #: What nobody holds; below 0 where more is held than the limit that rules now.
    free: int
    #: The smallest that hosts declare.
    limit: int
    #: Whether some host wants more than there is.
    is_hungry: bool
    #: What all hosts have spent, as each said last; what lost ledgers held counts as spent.
    spent: int = 0
    #: The one host that tells the wish's `mark`.
    teller: str = ""


@dataclass(frozen=True, slots=True)
class BudgetAnswer:
    """What the books say to a call; `holdings` are in the order of its wishes."""

    epoch: str
    order: int
    version: int
    is_settled: bool
    #: Whether the books still find out who holds what; nothing is granted meanwhile. `missing` hosts are to report.
    is_recovering: bool
    missing: int
    #: None where the host has it already.
    roster: tuple[str, ...] | None
    holdings: tuple[Holding, ...]

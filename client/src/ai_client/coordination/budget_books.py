"""The engine's side of shared budgets, as a pure state machine. `budgets.lua` is the same, held to it by tests.

Invariants, in any order of any calls:
- a grant is taken from what nobody holds: the sum of all that hosts were granted and did not give back never grows
  past the limit;
- counters only grow, and the larger of what a host says and what is booked counts;
- books that another process kept grant nothing before every host that may hold something has reported.
The proof of the last one, and what it takes for granted: docs/adr/0033.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ai_client.coordination.budget_protocol import NO_LIMIT, BudgetAnswer, BudgetRequest, Holding, Wish

#: So many periods of a budget are kept.
KEPT_PERIODS = 32


@dataclass(slots=True)
class Fellow:
    """One host on the roster."""

    ledger: str = ""
    #: Version of the roster that it came with; the newest one that it has written down.
    joined: int = 0
    acked: int = 0
    is_settled: bool = False
    #: Since the books were begun anew.
    has_reported: bool = False
    #: Gone for good, as an operator said while the books were finding out: off the roster once they know.
    is_forgotten: bool = False


@dataclass(slots=True)
class HostGrant:
    """What one ledger was granted of a budget, and gave back."""

    ledger: str
    granted: int = 0
    returned: int = 0
    limit: int = NO_LIMIT
    spent: int = 0


@dataclass(slots=True)
class BudgetBook:
    """One budget in one period."""

    entries: dict[str, HostGrant] = field(default_factory=dict)
    #: Held by ledgers that are gone, each replaced by another one of its host.
    retired: int = 0
    #: Order of the last call that wanted more than there was.
    hungry_at: int = 0
    #: Who tells which threshold.
    tellers: dict[str, str] = field(default_factory=dict)

    def copy(self) -> BudgetBook:
        """As a replica or a dump has it."""
        entries = {host: replace(entry) for host, entry in self.entries.items()}
        return replace(self, entries=entries, tellers=dict(self.tellers))

    @property
    def out(self) -> int:
        return self.retired + sum(entry.granted - entry.returned for entry in self.entries.values())

    @property
    def spent(self) -> int:
        return self.retired + sum(entry.spent for entry in self.entries.values())

    @property
    def limit(self) -> int:
        return min((e.limit for e in self.entries.values() if e.limit != NO_LIMIT), default=NO_LIMIT)


@dataclass(slots=True)
class BudgetBooks:
    """One account's. `run` names the engine process that keeps them."""

    run: str = ""
    epoch: str = ""
    order: int = 0
    version: int = 0
    is_recovering: bool = True
    fellows: dict[str, Fellow] = field(default_factory=dict)
    budgets: dict[tuple[str, str], BudgetBook] = field(default_factory=dict)
    #: Those that are to be there: an engine that was told to evict takes one, and leaves the rest.
    made: set[tuple[str, str]] = field(default_factory=set)

    def copy(self) -> BudgetBooks:
        """As a replica or a dump has it."""
        return replace(
            self,
            fellows={name: replace(fellow) for name, fellow in self.fellows.items()},
            budgets={key: book.copy() for key, book in self.budgets.items()},
            made=set(self.made),
        )

    def call(self, run: str, request: BudgetRequest) -> BudgetAnswer:
        """Processes one call, in the engine process `run`."""
        is_behind = request.epoch == self.epoch and request.ack > self.order
        if run != self.run or is_behind or self._has_lost(request):
            self._begin_epoch(run, request)
        self.order += 1
        is_same = request.epoch == self.epoch
        fellow = self._fellow(request)
        if is_same:
            fellow.acked = max(fellow.acked, min(request.version, self.version))
        fellow.is_settled = fellow.is_settled or request.is_settled
        if self.is_recovering and is_same:
            self._recover(fellow, request)
        elif not self.is_recovering and is_same:
            self._settle(fellow)
        holdings = tuple(self._account(fellow, request, wish) for wish in request.wishes)
        return BudgetAnswer(
            epoch=self.epoch,
            order=self.order,
            version=self.version,
            is_settled=fellow.is_settled,
            is_recovering=self.is_recovering,
            missing=self._missing() if self.is_recovering else 0,
            roster=None if is_same and request.version == self.version else tuple(sorted(self.fellows)),
            holdings=holdings,
        )

    def forget(self, host: str) -> None:
        """Takes a host off the roster that is gone for good. What it held stays held until its period ends."""
        if self.is_recovering:
            # Hosts that have not heard of it name it again.
            self.fellows[host] = Fellow(has_reported=True, is_forgotten=True)
        elif self.fellows.pop(host, None) is not None:
            self.version += 1

    def _has_lost(self, request: BudgetRequest) -> bool:
        """Whether the roster or a book that the call is about is gone, and the account is not."""
        keys = [(wish.scope, wish.period) for wish in request.wishes]
        lost = [key for key in keys if key in self.made and key not in self.budgets]
        return bool(lost) or (self.version > 0 and not self.fellows)

    def _begin_epoch(self, run: str, request: BudgetRequest) -> None:
        """These books may lack what another engine process granted: all hosts are to say what they hold."""
        self.run = run
        self.epoch = f"{run}.{request.nonce}"
        self.version += 1
        self.is_recovering = True
        for fellow in self.fellows.values():
            fellow.acked = 0
            fellow.has_reported = fellow.is_forgotten

    def _fellow(self, request: BudgetRequest) -> Fellow:
        known = self.fellows.get(request.host)
        if known is None or known.ledger != request.ledger:
            self.version += 1
            known = self.fellows[request.host] = Fellow(request.ledger, joined=self.version)
        return known

    def _recover(self, fellow: Fellow, request: BudgetRequest) -> None:
        """A report is taken in. Once all have reported, and one of them is settled, nothing is unknown any more."""
        if request.reports:
            fellow.has_reported = True
            for name in request.roster:
                if name not in self.fellows:
                    self.version += 1
                    self.fellows[name] = Fellow(joined=self.version)
        if self._missing() == 0:
            is_known = any(other.is_settled for other in self.fellows.values())
            self.is_recovering = not (is_known or request.has_waited)
        if not self.is_recovering:
            for name in [name for name, other in self.fellows.items() if other.is_forgotten]:
                self.version += 1
                del self.fellows[name]

    def _missing(self) -> int:
        return sum(not fellow.has_reported for fellow in self.fellows.values())

    def _settle(self, fellow: Fellow) -> None:
        """It has written down who is here, and one of these has written down that it came: neither is forgotten."""
        if fellow.is_settled or fellow.acked != self.version:
            return
        others = [other for other in self.fellows.values() if other is not fellow and other.is_settled]
        fellow.is_settled = not others or any(other.acked >= fellow.joined for other in others)

    def _account(self, fellow: Fellow, request: BudgetRequest, wish: Wish) -> Holding:
        """Books what the host says, and grants what it wants and nobody holds."""
        book = self._book(wish)
        entry = book.entries.get(request.host)
        if entry is None or entry.ledger != request.ledger:
            if entry is not None:
                book.retired += entry.granted - entry.returned
            entry = book.entries[request.host] = HostGrant(request.ledger)
        # What was spent before the budget was shared was granted by nobody.
        entry.granted = max(entry.granted, wish.granted, wish.returned + wish.used)
        entry.returned = max(entry.returned, wish.returned)
        entry.spent = wish.spent
        if wish.limit != NO_LIMIT:
            entry.limit = wish.limit
        need = wish.want - (entry.granted - entry.returned)
        if need > 0 and fellow.is_settled and not self.is_recovering:
            given = max(0, min(need, book.limit - book.out))
            entry.granted += given
            if given < need:
                book.hungry_at = self.order
        return Holding(
            entry.granted,
            entry.returned,
            free=book.limit - book.out,
            limit=book.limit,
            is_hungry=book.hungry_at > 0 and self.order - book.hungry_at <= 2 * len(self.fellows),
            spent=book.spent,
            teller=book.tellers.setdefault(wish.mark, request.host) if wish.mark else "",
        )

    def _book(self, wish: Wish) -> BudgetBook:
        key = (wish.scope, wish.period)
        if key not in self.budgets:
            self.budgets[key] = BudgetBook()
            self.made.add(key)
            alike = [each for each in self.budgets if each[0] == key[0] and len(each[1]) == len(key[1])]
            if len(alike) > KEPT_PERIODS:
                del self.budgets[alike[0]]
                self.made.discard(alike[0])
        return self.budgets[key]

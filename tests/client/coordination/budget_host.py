"""A host of the simulation of shared budgets: its ledger's file, and what it may spend by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ai_client.configure.shared_budgets import Borrower
from ai_client.ledger.allowance import BudgetKey, OnFile, Standing


@dataclass(slots=True)
class Row:
    """One budget in a file, as `allowance` and `total` have it."""

    granted: int = 0
    returned: int = 0
    held: int = 0
    spent: int = 0
    #: Whether the allowance has a row.
    is_shared: bool = False

    @property
    def used(self) -> int:
        return self.held + self.spent


@dataclass(slots=True)
class File:
    """What outlives every crash; the same as `AllowanceFile`, without the disk."""

    name: str
    roster: tuple[str, ...] = ()
    is_settled: bool = False
    rows: dict[BudgetKey, Row] = field(default_factory=dict)

    def row(self, key: BudgetKey) -> Row:
        return self.rows.setdefault(key, Row())

    def look(self, keys: Sequence[BudgetKey], *, since: tuple[str, str]) -> OnFile:
        for key in keys:
            row = self.row(key)
            if not row.is_shared:
                row.is_shared, row.granted = True, row.used
        found = {
            key: Standing(*key, row.granted, row.returned, row.used, row.spent)
            for key, row in self.rows.items()
            if row.is_shared and (key in keys or key[1] >= since[len(key[1]) == len("2026-11")])
        }
        return OnFile(self.name, self.roster, self.is_settled, found)

    def give_back(self, keep: Mapping[BudgetKey, int]) -> None:
        for key, nusd in keep.items():
            row = self.rows[key]
            row.returned = max(row.returned, row.granted - max(nusd, row.used))

    def take(
        self,
        grants: Mapping[BudgetKey, tuple[int, int]],
        *,
        ledger: str,
        roster: Sequence[str] | None,
        is_settled: bool,
    ) -> None:
        if ledger != self.name:
            return
        for key, (granted, returned) in grants.items():
            row = self.row(key)
            row.is_shared = True
            row.granted, row.returned = max(row.granted, granted), max(row.returned, returned)
        if roster is not None:
            self.roster = tuple(roster)
        self.is_settled = self.is_settled or is_settled

    def crashed(self) -> None:
        """Its process was killed: what was written stays."""

    def fits(self, key: BudgetKey, asked: int, limit: int) -> bool:
        """As the ledger's admission has it."""
        row = self.row(key)
        return row.used + asked <= min(limit, row.granted - row.returned)


@dataclass(slots=True)
class Host:
    """One host. Its process may be another after each crash; its file stays."""

    name: str
    file: File
    #: What it declares, by scope and length of the period's name.
    limits: dict[tuple[str, int], int]
    borrower: Borrower
    drift: float
    boot_offset_ms: int
    wall_offset_s: float
    refused: dict[BudgetKey, int] = field(default_factory=dict)
    #: The most that one of its requests may cost; none where it wants nothing.
    wants: int = 0
    process: int = 1
    #: Calls of a process that was replaced go on to their end; those of one that was killed don't.
    killed: set[int] = field(default_factory=set)
    is_gone: bool = False
    link_up: bool = True
    stopped_until_ms: int = 0

    def boot_ms(self, real_ms: int) -> int:
        return int(real_ms * self.drift) + self.boot_offset_ms

    @property
    def is_alive(self) -> bool:
        return not self.is_gone and self.process not in self.killed

"""A host's place among those that share budgets, as as a pure state machine: which books it knows, what it told."""

from __future__ import annotations

from dataclasses import dataclass

from ai_client.coordination.budget_protocol import BudgetAnswer, BudgetRequest, BudgetTerms, Wish


@dataclass(frozen=True, slots=True)
class ToWrite:
    """What is to be in the ledger's file before the next call speaks of it."""

    roster: tuple[str, ...] | None
    is_settled: bool


class BudgetSeat:
    """`ledger`, `roster` and `is_settled` are what the ledger's file has. Times are milliseconds of the boot clock."""

    def __init__(
        self,
        host: str,
        *,
        ledger: str,
        instance: str,
        roster: tuple[str, ...] = (),
        is_settled: bool = False,
        terms: BudgetTerms,
    ) -> None:
        self.host = host
        self.ledger = ledger
        self.roster = roster
        self.is_settled = is_settled
        #: Of the last call that was answered.
        self.answer: BudgetAnswer | None = None
        self._instance = instance
        self._terms = terms
        self._count = 0
        self._version = 0
        self._epoch_since_ms = 0

    @property
    def is_to_report(self) -> bool:
        """Whether the next call says all that this host holds."""
        return self.answer is not None and self.answer.is_recovering

    @property
    def is_waiting(self) -> bool:
        """Whether it is granted nothing yet: the books are new, or other hosts don't know of this one."""
        return self.answer is None or self.answer.is_recovering or not self.answer.is_settled

    def begin(self, now_ms: int, wishes: tuple[Wish, ...]) -> BudgetRequest:
        """The next call."""
        self._count += 1
        answer = self.answer
        return BudgetRequest(
            host=self.host,
            ledger=self.ledger,
            nonce=f"{self._instance}.{self._count}",
            epoch="" if answer is None else answer.epoch,
            ack=0 if answer is None else answer.order,
            version=self._version,
            is_settled=self.is_settled,
            has_waited=answer is not None and now_ms - self._epoch_since_ms >= self._terms.founding_ms,
            reports=self.is_to_report,
            roster=self.roster if self.is_to_report else (),
            wishes=wishes,
        )

    def end(self, answer: BudgetAnswer, now_ms: int) -> ToWrite:
        """Takes the answer to the call begun last. What it gives back is to be written, then `written` to be called."""
        if self.answer is None or self.answer.epoch != answer.epoch:
            self._epoch_since_ms = now_ms
            self._version = 0
        self.answer = answer
        return ToWrite(self._roster(answer), self.is_settled or answer.is_settled)

    def written(self, done: ToWrite) -> None:
        """It is in the file: from now on it is told."""
        self.is_settled = done.is_settled
        if done.roster is not None and self.answer is not None:
            self.roster = done.roster
            self._version = self.answer.version

    def _roster(self, answer: BudgetAnswer) -> tuple[str, ...] | None:
        """Whoever is known stays known until the books know all again."""
        if answer.roster is None or not answer.is_recovering:
            return answer.roster
        return tuple(sorted({*self.roster, *answer.roster}))

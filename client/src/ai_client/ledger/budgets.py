"""Budgets as data, and the decision whether a reserve fits. All amounts are nano-dollars."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from ai_client.ledger.prices import dollars_to_nusd

if TYPE_CHECKING:
    from ai_client.settings import BudgetSettings, TenantSettings

#: The scope of a budget that holds for all tenants together. No tenant has this name: it is not a word.
ALL_TENANTS: Final = "*"


class Span(StrEnum):
    """How long a budget lasts."""

    DAY = "day"
    MONTH = "month"


@dataclass(frozen=True, slots=True)
class Budget:
    """`limit_nusd` for `scope` (a tenant, or `ALL_TENANTS`) in each `span`."""

    scope: str
    span: Span
    limit_nusd: int


@dataclass(slots=True)
class Amount:
    """What is set aside for calls in flight, and what is booked (billed-unknown included)."""

    held_nusd: int
    spent_nusd: int
    #: Of a budget that hosts share: what this one may use of it. None of any other.
    allowed_nusd: int | None = None


@dataclass(frozen=True, slots=True)
class BudgetPlan:
    """All budgets of a host. `alert_shares` are shares of a limit; each tells once a period."""

    budgets: tuple[Budget, ...] = ()
    alert_shares: tuple[float, ...] = (0.8, 1.0)
    timezone: str = "UTC"
    hard_stop: bool = True
    #: The account whose hosts share these budgets; "" where they are this host's own.
    shared_by: str = ""
    _by_scope: Mapping[str, tuple[Budget, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        scopes = {budget.scope for budget in self.budgets}
        by_scope = {scope: tuple(b for b in self.budgets if b.scope == scope) for scope in scopes}
        object.__setattr__(self, "_by_scope", by_scope)

    @classmethod
    def from_settings(
        cls, budget: "BudgetSettings", tenants: Sequence["TenantSettings"], *, shared_by: str = ""
    ) -> "BudgetPlan":
        """The sections `[budget]` and `[tenant NAME]`."""
        owners: list[tuple[str, BudgetSettings | TenantSettings]] = [(ALL_TENANTS, budget)]
        owners += [(tenant.name, tenant) for tenant in tenants]
        limits = [
            (scope, span, dollars)
            for scope, owner in owners
            for span, dollars in ((Span.DAY, owner.daily_usd), (Span.MONTH, owner.monthly_usd))
        ]
        return cls(
            budgets=tuple(
                Budget(scope, span, dollars_to_nusd(dollars))
                for scope, span, dollars in limits
                if dollars is not None
            ),
            alert_shares=tuple(sorted({budget.alert_at_share, 1.0})),
            timezone=budget.timezone,
            hard_stop=budget.hard_stop,
            shared_by=shared_by,
        )

    def of(self, tenant: str) -> tuple[Budget, ...]:
        """The budgets that a request of `tenant` counts against."""
        return self._by_scope.get(ALL_TENANTS, ()) + self._by_scope.get(tenant, ())


def fits(budget: Budget, amount: Amount, asked_nusd: int) -> bool:
    """Whether the budget holds even if everything that is set aside is spent."""
    return amount.held_nusd + amount.spent_nusd + asked_nusd <= budget.limit_nusd


def is_allowed(amount: Amount, asked_nusd: int) -> bool:
    """Whether this host may use so much more of a budget that hosts share."""
    allowed = amount.allowed_nusd
    return allowed is None or amount.held_nusd + amount.spent_nusd + asked_nusd <= allowed


def shares_passed(budget: Budget, amount: Amount, alert_shares: Sequence[float]) -> tuple[float, ...]:
    """The alert shares (in rising order) that the booked amount has reached.

    A limit of 0 has none: nothing can be spent.
    """
    if budget.limit_nusd == 0 or not alert_shares or amount.spent_nusd < alert_shares[0] * budget.limit_nusd:
        return ()
    return tuple(share for share in alert_shares if amount.spent_nusd >= share * budget.limit_nusd)

"""Whether a process may take over: not where it would refuse what the one before it still answers."""

from __future__ import annotations

from ai_client.ledger.ledger import SpendLedger
from ai_client.settings import Settings


def unfit(settings: Settings, ledger: SpendLedger) -> str:
    """Why it may not; "" where it may."""
    tenants = ("", *(tenant.name for tenant in settings.tenants))
    if ledger.stats().is_open or not any(ledger.is_hard(tenant) for tenant in tenants):
        return ""
    return (
        "its ledger can't be opened (see store_degraded in the log: a full disk, or a ledger of a newer release), "
        "and a hard budget needs it"
    )

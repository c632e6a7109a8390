"""Calls and answers about shared budgets as the engine's script has them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from ai_client.coordination.budget_protocol import BudgetAnswer, BudgetRequest, Holding, Wish

SCRIPT = (files("ai_client.coordination") / "budgets.lua").read_text("utf-8")
DIGEST = hashlib.sha1(SCRIPT.encode()).hexdigest()  # noqa: S324 - how engines name scripts
_HEAD = 7
_HOLDING = 7


@dataclass(frozen=True, slots=True)
class BudgetKeys:
    """Where an account's shared budgets are in the engine, on the hash tag of its quota."""

    account: str

    def of(self, wishes: Sequence[Wish]) -> list[str]:
        """Every key of the script, in its order."""
        place = f"{{ai-client:{self.account}}}"
        books = [f"{place}.budgets.{wish.scope}.{wish.period}" for wish in wishes]
        return [f"{place}.budgets", f"{place}.roster", *books]


def arguments(request: BudgetRequest) -> list[str]:
    """One call."""
    told = [
        request.host, request.ledger, request.nonce, request.epoch, str(request.ack), str(request.version),
        str(int(request.is_settled)), str(int(request.has_waited)), str(int(request.reports)),
        "\n".join(request.roster),
    ]  # fmt: skip
    for wish in request.wishes:
        amounts = (wish.limit, wish.granted, wish.returned, wish.used, wish.want, wish.spent)
        told += [wish.scope, wish.period, *map(str, amounts), wish.mark]
    return told


def parse(reply: object) -> BudgetAnswer:
    """What the script answered. Raises ValueError where it is none of its answers."""
    if not isinstance(reply, list) or len(reply) < _HEAD or (len(reply) - _HEAD) % _HOLDING:
        raise ValueError("the engine's script answered in another form: another release's script?")
    epoch, order, version, settled, recovering, missing, roster, *amounts = (
        each.decode() if isinstance(each, bytes) else each for each in reply
    )
    rows = [amounts[at : at + _HOLDING] for at in range(0, len(amounts), _HOLDING)]
    return BudgetAnswer(
        epoch=str(epoch),
        order=int(order),
        version=int(version),
        is_settled=bool(settled),
        is_recovering=bool(recovering),
        missing=int(missing),
        roster=tuple(sorted(str(roster).split("\n"))) if roster else None,
        holdings=tuple(
            Holding(int(granted), int(returned), int(free), int(limit), bool(hungry), int(spent), str(teller))
            for granted, returned, free, limit, hungry, spent, teller in rows
        ),
    )

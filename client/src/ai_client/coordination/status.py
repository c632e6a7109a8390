"""How a host stands in a shared quota, for people."""

from __future__ import annotations

from dataclasses import dataclass

from ai_client.coordination.lease import Mode
from ai_client.coordination.window import LeasedWindow

#: Why nothing new is lent for a while.
RECOVERING = (
    "the engine does not know what was lent: it is new, or was emptied, restored or failed over; "
    "nothing new is lent until all that was has ended"
)


@dataclass(slots=True)
class Status:
    """What people may see of it. Slots are requests a span."""

    mode: Mode
    #: Why the engine gave no answer that counts, the last time that it was asked; None where it did.
    trouble: str | None
    limit: int
    share: int
    pool: int
    slots: int
    hosts: int
    #: See RECOVERING.
    is_recovering: bool
    calls: int
    failures: int
    pauses_told: int
    pauses_heard: int


def status_of(
    window: LeasedWindow,
    *,
    trouble: str | None = None,
    calls: int = 0,
    failures: int = 0,
    pauses_told: int = 0,
    pauses_heard: int = 0,
) -> Status:
    """By the window, and by what its keeper has counted; nothing where it has not begun."""
    now, answer = window.now(), window.requests.answer
    return Status(
        mode=window.mode(now),
        trouble=trouble,
        limit=window.requests.limit(now),
        share=window.requests.share,
        pool=answer.pool if answer else 0,
        slots=answer.slots if answer else 0,
        hosts=answer.hosts if answer else 0,
        is_recovering=answer.recovering if answer else True,
        calls=calls,
        failures=failures,
        pauses_told=pauses_told,
        pauses_heard=pauses_heard,
    )

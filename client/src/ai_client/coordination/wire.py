"""Calls and answers as the engine's script has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files

from ai_client.coordination.protocol import Kind, QuotaAnswer, QuotaRequest

SCRIPT = (files("ai_client.coordination") / "lease.lua").read_text("utf-8")


@dataclass(frozen=True, slots=True)
class Keys:
    """Where one account's state is in the engine; all of it is on one hash tag."""

    account: str
    #: `requests`, and `tokens` where those are limited.
    units: tuple[str, ...] = ("requests",)

    @property
    def reports(self) -> str:
        """What hosts say of themselves, by host."""
        return f"{{ai-client:{self.account}}}.words"

    @property
    def said(self) -> str:
        """When each said it, in seconds of the engine's clock."""
        return f"{{ai-client:{self.account}}}.said"

    @property
    def pauses(self) -> str:
        """The channel on which hosts tell each other to wait."""
        return f"{{ai-client:{self.account}}}.pauses"

    def all(self) -> list[str]:
        """Every key of the script, in its order."""
        quotas = [f"{{ai-client:{self.account}}}.{unit}" for unit in self.units]
        books = [key for quota in quotas for key in (f"{quota}.books", f"{quota}.confirmed")]
        return [self.reports, self.said, *books]


def arguments(requests: Sequence[QuotaRequest], *, report: str = "") -> list[str]:
    """One call: the same host and instance for each quota, and what the host says of itself."""
    told = [requests[0].host, requests[0].instance, report]
    for each in requests:
        told += [
            str(each.ticket), str(each.number), each.epoch, str(each.ack), str(each.view), str(int(each.ripe)),
            str(each.soft), str(each.past), str(int(each.lenient)), str(each.held), str(each.cap), str(each.used),
            str(each.share), str(each.floor), str(each.demand),
        ]  # fmt: skip
    return told


def parse(reply: object) -> list[QuotaAnswer]:
    """What the script answered. Raises ValueError where it is none of its answers."""
    if not isinstance(reply, list):
        raise ValueError("the engine's script answered with something else than a list")  # noqa: TRY004 - its content
    return [_answer(each) for each in reply]


def _answer(fields: object) -> QuotaAnswer:
    if not isinstance(fields, list) or len(fields) != 12:
        raise ValueError("the engine's script answered in another form: another release's script?")
    kind, epoch, *rest = (each.decode() if isinstance(each, bytes) else each for each in fields)
    order, held, cap, viewed, recovering, *of_all = (int(number) for number in rest)
    pool, slots, hosts, hungry, target = of_all
    told = QuotaAnswer(Kind(kind), epoch, order, held, cap, bool(viewed), bool(recovering))
    return replace(told, pool=pool, slots=slots, hosts=hosts, hungry=bool(hungry), target=target)

"""What a host says of itself in the registry of the fleet, and what others make of it: hearsay that decides nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

_LONGEST_TEXT = 300
_MOST_TENANTS = 1_000


@dataclass(frozen=True, slots=True)
class HostReport:
    """One host's. Whoever may call the engine may say anything: readers take it as hearsay."""

    version: str = ""
    #: Digest of the release that is in place, as the deploy names it; "" where there is none.
    release: str = ""
    #: SHA-256 of the configuration file in use; "" without one.
    config: str = ""
    #: Fingerprints.
    key: str = ""
    key_next: str = ""
    is_well: bool = True
    #: What its health check complains of; "" where it is well.
    trouble: str = ""
    #: Whether its files are as the last deploy left them: sealed, changed or unknown.
    files: str = "unknown"
    #: Where its quota comes from, and how many requests a minute it may send now.
    mode: str = ""
    rpm: int = 0
    #: Since its start: requests, those that failed, and refusals of the upstream.
    requests: int = 0
    errors: int = 0
    throttled: int = 0
    queued: int = 0
    #: What its ledger has, in nano-dollars: of `day`, such as 2026-11-28 where its budgets are, and of its month.
    day: str = ""
    today_nusd: int = 0
    month_nusd: int = 0
    #: The same of each tenant that spent something: its name, this day's and this month's.
    tenants: tuple[tuple[str, int, int], ...] = ()

    def encode(self) -> str:
        """As the engine keeps it."""
        return json.dumps({name: value for name, value in asdict(self).items() if value != _USUAL[name]})


_USUAL = {item.name: item.default for item in fields(HostReport)}


@dataclass(frozen=True, slots=True)
class KnownHost:
    """What is known of a host; `age_s` since it said so, by the engine's clock."""

    host: str
    report: HostReport
    age_s: int

    def as_json(self) -> dict[str, Any]:
        """For people and programs."""
        return {"host": self.host, "age_s": self.age_s, **asdict(self.report)}


def known_hosts(texts: Mapping[str, str], said_at_s: Mapping[str, str], *, now_s: int) -> list[KnownHost]:
    """What all hosts say, by name; what is none of it counts as nothing said."""
    return [
        KnownHost(host, _decode(text), max(0, now_s - _number(said_at_s.get(host, ""))))
        for host, text in sorted(texts.items())
    ]


def _decode(text: str) -> HostReport:
    try:
        told = json.loads(text or "{}")
    except ValueError:
        told = {}
    if not isinstance(told, dict):
        told = {}
    return HostReport(**{name: _as(usual, told[name]) for name, usual in _USUAL.items() if name in told})


def _as(usual: object, value: object) -> Any:
    """A value of the kind that its field has."""
    if isinstance(usual, bool):
        return value is True
    if isinstance(usual, tuple):
        return _tenants(value)
    if isinstance(usual, int):
        return value if isinstance(value, int) and not isinstance(value, bool) else 0
    return "".join(letter for letter in str(value)[:_LONGEST_TEXT] if letter.isprintable())


def _tenants(value: object) -> tuple[tuple[str, int, int], ...]:
    rows = (
        [row for row in value if isinstance(row, list) and len(row) == 3] if isinstance(value, list) else []
    )
    return tuple((_as("", name), _as(0, day), _as(0, month)) for name, day, month in rows[:_MOST_TENANTS])


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0

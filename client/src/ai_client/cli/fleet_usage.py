"""`ai-client usage --fleet`: what all hosts that share the quota have spent, as each last said of its ledger."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from typing import Any

from ai_client.cli.fleet import SILENT_S, TIMEOUT_S, reason_of
from ai_client.cli.host import socket_of
from ai_client.cli.service_socket import ServiceUnreachableError, ask
from ai_client.cli.table import table
from ai_client.ledger.prices import nusd_to_dollars

_MONTH = len("2026-11")
# No tenant has this name.
_ALL = ""


def run(options: argparse.Namespace) -> int:
    """0, or 1 where the service or the engine does not answer."""
    try:
        status, answer = ask(socket_of(options), "GET", "/fleet.json", timeout_s=TIMEOUT_S)
    except ServiceUnreachableError as exc:
        status, answer = 0, {"error": str(exc)}
    if status != 200:
        print(reason_of(answer), file=sys.stderr)
        return 1
    found = as_json(answer["hosts"], budgets=answer.get("budgets") or [])
    print(json.dumps(found) if options.json else as_text(found))
    return 0


def as_json(hosts: list[dict[str, Any]], *, budgets: list[dict[str, Any]]) -> dict[str, Any]:
    """`{"day", "hosts": [{"host", "today_usd", "month_usd", "month_share", "age_s", "tenants"}], "tenants", "total",
    "budgets"}`, `tenants` by name.

    Of a host that last spoke on another day, or in another month, that day or month counts as nothing. `budgets` are
    those that the hosts share, as the asked one knows them.
    """
    day = max((each["day"] for each in hosts), default="")
    rows, sums = [], Counter[tuple[str, bool]]()
    for each in hosts:
        amounts = {name: _of_now(each, day, *spent) for name, spent in _spent(each)}
        for name, (today, month) in amounts.items():
            sums[name, True] += today
            sums[name, False] += month
        of_tenants = {name: _dollars(*spent) for name, spent in amounts.items() if name}
        age = {"age_s": each["age_s"], "tenants": of_tenants}
        rows.append(
            {"host": each["host"], **_dollars(*amounts[_ALL]), "month_share": amounts[_ALL][1], **age}
        )
    for row in rows:
        row["month_share"] = round(row["month_share"] / (sums[_ALL, False] or 1), 4)
    totals = {name: _dollars(sums[name, True], sums[name, False]) for name, _ in sorted(sums)}
    total = totals.pop(_ALL, _dollars(0, 0))
    return {"day": day, "hosts": rows, "tenants": totals, "total": total, "budgets": budgets}


def _spent(host: dict[str, Any]) -> list[tuple[str, tuple[int, int]]]:
    of_tenants = [(name, (today, month)) for name, today, month in host.get("tenants", ()) if name]
    return [(_ALL, (host["today_nusd"], host["month_nusd"])), *of_tenants]


def _of_now(host: dict[str, Any], day: str, today_nusd: int, month_nusd: int) -> tuple[int, int]:
    is_this_month = host["day"][:_MONTH] == day[:_MONTH]
    return (today_nusd if host["day"] == day else 0), (month_nusd if is_this_month else 0)


def _dollars(today_nusd: int, month_nusd: int) -> dict[str, float]:
    return {"today_usd": float(nusd_to_dollars(today_nusd)), "month_usd": float(nusd_to_dollars(month_nusd))}


def as_text(found: dict[str, Any]) -> str:
    """A table of hosts, its sum last; then one of each tenant's hosts, and one of the budgets that hosts share."""
    days = (f"{found['day']} $", f"{found['day'][:_MONTH]} $")
    rows = [
        (
            each["host"],
            *_cells(each),
            f"{each['month_share']:.1%}",
            "silent" if each["age_s"] > SILENT_S else "",
        )
        for each in found["hosts"]
    ]
    rows.append(("total", *_cells(found["total"]), "", ""))
    tables = [table(("host", *days, "share", ""), rows, left=1)]
    of_tenants = [
        line
        for name, total in found["tenants"].items()
        for line in (
            *(
                (name, each["host"], *_cells(each["tenants"][name]))
                for each in found["hosts"]
                if name in each["tenants"]
            ),
            (name, "total", *_cells(total)),
        )
    ]
    if of_tenants:
        tables.append(table(("tenant", "host", *days), of_tenants, left=2))
    if found["budgets"]:
        lines = [
            (each["scope"], each["period"], *(f"{each[name]:.6f}" for name in ("limit_usd", "free_usd")))
            for each in found["budgets"]
        ]
        tables.append(table(("budget of", "a", "limit $", "held by no host $"), lines, left=2))
    return "\n\n".join(tables)


def _cells(row: dict[str, Any]) -> tuple[str, str]:
    return f"{row['today_usd']:.6f}", f"{row['month_usd']:.6f}"

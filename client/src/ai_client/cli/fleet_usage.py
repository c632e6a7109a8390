"""`ai-client usage --fleet`: what all hosts that share the quota have spent, as each last said of its ledger."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from ai_client.cli.fleet import SILENT_S, TIMEOUT_S, reason_of
from ai_client.cli.host import socket_of
from ai_client.cli.service_socket import ServiceUnreachableError, ask
from ai_client.cli.table import table
from ai_client.ledger.prices import nusd_to_dollars

_MONTH = len("2026-11")


def run(options: argparse.Namespace) -> int:
    """0, or 1 where the service or the engine does not answer."""
    try:
        status, answer = ask(socket_of(options), "GET", "/fleet.json", timeout_s=TIMEOUT_S)
    except ServiceUnreachableError as exc:
        status, answer = 0, {"error": str(exc)}
    if status != 200:
        print(reason_of(answer), file=sys.stderr)
        return 1
    found = as_json(answer["hosts"])
    print(json.dumps(found) if options.json else as_text(found))
    return 0


def as_json(hosts: list[dict[str, Any]]) -> dict[str, Any]:
    """`{"day", "hosts": [{"host", "today_usd", "month_usd", "age_s"}], "total": {…}}`.

    Of a host that last spoke on another day, or in another month, that day or month counts as nothing.
    """
    day = max((each["day"] for each in hosts), default="")
    rows, today, month = [], 0, 0
    for each in hosts:
        today_nusd = each["today_nusd"] if each["day"] == day else 0
        month_nusd = each["month_nusd"] if each["day"][:_MONTH] == day[:_MONTH] else 0
        today, month = today + today_nusd, month + month_nusd
        rows.append({"host": each["host"], **_dollars(today_nusd, month_nusd), "age_s": each["age_s"]})
    return {"day": day, "hosts": rows, "total": _dollars(today, month)}


def _dollars(today_nusd: int, month_nusd: int) -> dict[str, float]:
    return {"today_usd": float(nusd_to_dollars(today_nusd)), "month_usd": float(nusd_to_dollars(month_nusd))}


def as_text(found: dict[str, Any]) -> str:
    """A table, its sum last."""
    rows = [
        (each["host"], *_cells(each), "silent" if each["age_s"] > SILENT_S else "") for each in found["hosts"]
    ]
    rows.append(("total", *_cells(found["total"]), ""))
    return table(("host", f"{found['day']} $", f"{found['day'][:_MONTH]} $", ""), rows, left=1)


def _cells(row: dict[str, Any]) -> tuple[str, str]:
    return f"{row['today_usd']:.6f}", f"{row['month_usd']:.6f}"

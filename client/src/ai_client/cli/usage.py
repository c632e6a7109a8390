"""`ai-client usage`: what was spent, by model, tenant, day or cost tag, from the ledger."""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from ai_client.cli.arguments import USAGE_BY, USAGE_DAYS
from ai_client.cli.host import config_of, is_there, usable_settings
from ai_client.cli.parser import EXIT_USAGE
from ai_client.cli.table import table
from ai_client.ledger.usage import UsageReport, UsageRow, read_usage

STATE_FOLDER = Path("/var/lib/ai-client")
LEDGER_NAME = "ledger.sqlite"


def _unused_with_fleet(options: argparse.Namespace) -> list[str]:
    """What hosts' own reports can't be asked for."""
    given = {
        "--by": options.by != USAGE_BY,
        "--days": options.days != USAGE_DAYS,
        "--since": options.since is not None,
        "--until": options.until is not None,
        "--ledger": options.ledger is not None,
    }
    return [name for name, is_given in given.items() if is_given]


def run(options: argparse.Namespace) -> int:
    """0, 1 where there is no ledger that this user can read, or 2 where the options don't fit together."""
    if options.fleet:
        unused = _unused_with_fleet(options)
        if unused:
            print(
                f"--fleet shows today and this month of each host; leave out {', '.join(unused)}",
                file=sys.stderr,
            )
            return EXIT_USAGE
        from ai_client.cli import fleet_usage  # noqa: PLC0415  most ask for this host alone

        return fleet_usage.run(options)
    path = options.ledger or ledger_path(options)
    last = options.until or datetime.now(UTC).date()
    first = options.since or last - timedelta(days=options.days - 1)
    if first > last:
        print(f"--since {first} is after --until {last}; swap them", file=sys.stderr)
        return EXIT_USAGE
    try:
        with path.open("rb"):
            pass
        report = read_usage(path, first_day=first.isoformat(), last_day=last.isoformat(), by=options.by)
    except OSError as exc:
        print(f"the ledger {path} can't be read ({exc.strerror}); {_remedy(exc)}", file=sys.stderr)
        return 1
    except sqlite3.Error as exc:
        remedy = "name a ledger of ai-client with --ledger"
        print(f"{path} can't be read as a ledger ({exc}); {remedy}", file=sys.stderr)
        return 1
    print(json.dumps(as_json(report, first, last)) if options.json else as_text(report, first, last))
    return 0


def _remedy(exc: OSError) -> str:
    # The ledger is the service's alone, as it says what each tenant spends; the audit trail is for its group too.
    if isinstance(exc, PermissionError):
        return "run it as root (`sudo ai-client usage`), or name the file with --ledger"
    return "the service creates it when it starts; if it is elsewhere, name the file with --ledger"


def ledger_path(options: argparse.Namespace) -> Path:
    """Where the service keeps it: systemd's state folder, else the cache folder, else the user's own state folder."""
    folder = os.environ.get("STATE_DIRECTORY")
    if folder:
        return Path(folder) / LEDGER_NAME
    of_service = STATE_FOLDER / LEDGER_NAME
    if config_of(options) is None:
        from ai_client.configure import personal  # noqa: PLC0415  hosts that were set up don't need it

        home = personal.state_home(os.environ)
        places = (of_service, home / LEDGER_NAME, home / personal.SIMULATED / LEDGER_NAME)
        return next(filter(is_there, places), places[1])
    in_cache = usable_settings(options).caching.cache_dir / LEDGER_NAME
    return in_cache if _is_seen(in_cache) else of_service


def _is_seen(path: Path) -> bool:
    """Whether a file is seen; where its folder may not be looked into, opening it says so better."""
    try:
        return path.exists()
    except PermissionError:
        return False


def _row(row: UsageRow) -> dict[str, Any]:
    return {
        "requests": row.requests,
        "input_tokens": row.input_tokens,
        "output_tokens": row.output_tokens,
        "cached_input_tokens": row.cached_input_tokens,
        "cost_usd": float(row.cost_usd),
        "unknown_requests": row.unknown_requests,
        "unknown_usd": float(row.unknown_usd),
    }


def as_json(report: UsageReport, first: date, last: date) -> dict[str, Any]:
    """`{"since", "until", "by", "rows": [{<dimension>: …, "requests": …, "cost_usd": …}], "total": {…}}`."""
    rows = [dict(zip(report.by, row.group, strict=True)) | _row(row) for row in report.rows]
    return {
        "since": first.isoformat(),
        "until": last.isoformat(),
        "by": list(report.by),
        "rows": rows,
        "total": _row(report.total),
    }


def as_text(report: UsageReport, first: date, last: date) -> str:
    """A table, its sum last."""
    heads = [*report.by, "requests", "input", "output", "dollars", "of which estimated"]
    lines = [[*row.group, *_cells(row)] for row in report.rows]
    lines.append(["total", *[""] * (len(report.by) - 1), *_cells(report.total)][-len(heads) :])
    return f"{first} to {last}\n" + table(heads, lines, left=len(report.by))


def _cells(row: UsageRow) -> list[str]:
    return [
        f"{row.requests:,}",
        f"{row.input_tokens:,}",
        f"{row.output_tokens:,}",
        f"{row.cost_usd:.6f}",
        f"{row.unknown_usd:.6f}" if row.unknown_requests else "",
    ]

"""Calls for the audit trail to write down, and its files as tests read them."""

import asyncio
import json
from pathlib import Path
from typing import Any

from ai_client.contract.events import Failed, Settled
from ai_client.contract.request import Usage
from tests.client import event_samples

DAY_S = 86_400.0
NOV_24 = 1_795_500_000.0


COMMON: dict[str, Any] = {"tenant": "team-a", "key_fingerprint": "0123456789ab"}


def settled(number: int = 1, *, at: float = NOV_24) -> Settled:
    return event_samples.settled(
        at=at,
        request_id=f"r-{number}",
        usage=Usage(100, 20, 50),
        cost_usd=0.00096,
        latency_s=1.2345,
        waited_s=0.1,
        upstream_s=1.1,
        cost_tags={"team": "core"},
        **COMMON,
    )


def failed() -> Failed:
    return event_samples.failed(
        at=NOV_24,
        request_id="r-f",
        status=503,
        stream=True,
        attempts=4,
        latency_s=9.0,
        waited_s=1.0,
        upstream_s=8.0,
        billed_unknown=True,
        **COMMON,
    )


def day_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("audit-*.jsonl"))


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in day_files(folder))


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for file in day_files(folder) for line in file.read_text().splitlines()]


async def turns(count: int) -> None:
    """So many turns of the event loop."""
    for _ in range(count):
        await asyncio.sleep(0)

"""Calls for the audit trail to write down, and its files as tests read them."""

import asyncio
import json
from pathlib import Path

from ai_client.events import Failed, Settled
from ai_client.request import Usage

DAY_S = 86_400.0
NOV_24 = 1_795_500_000.0


class HandClock:
    def __init__(self) -> None:
        self.now_s = NOV_24

    def __call__(self) -> float:
        return self.now_s


def settled(number: int = 1, *, at: float = NOV_24) -> Settled:
    return Settled(
        at=at,
        request_id=f"r-{number}",
        tenant="team-a",
        model="gpt-4.1",
        endpoint="chat/completions",
        status=200,
        stream=False,
        cached=False,
        attempts=1,
        usage=Usage(100, 20, 50),
        cost_usd=0.00096,
        latency_s=1.2345,
        waited_s=0.1,
        upstream_s=1.1,
        first_byte_s=None,
        key_fingerprint="0123456789ab",
        importance=None,
        cost_tags={"team": "core"},
        asked_model="gpt-4.1",
    )


def failed() -> Failed:
    return Failed(
        at=NOV_24,
        request_id="r-f",
        tenant="team-a",
        model="gpt-4.1",
        endpoint="chat/completions",
        error="ServerError",
        code="upstream_server_error",
        status=503,
        stream=True,
        attempts=4,
        latency_s=9.0,
        waited_s=1.0,
        upstream_s=8.0,
        key_fingerprint="0123456789ab",
        importance=None,
        cost_tags={},
        billed_unknown=True,
        asked_model="gpt-4.1",
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

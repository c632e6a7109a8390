"""A batch and interactive callers on one host, for a little more than a minute: who waits, and what is used."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from ai_client.testing import Simulator, SimulatorOptions
from tests.client.batch.test_run import start, write_input
from tests.client.service_rig import Rig, running_service, until

pytestmark = pytest.mark.slow

LIMIT_RPM = 240
SERVICE_S = 0.5
EVERY_S = 1.0
LENGTH_S = 64.0
LEAST_USE = 0.95


async def ask(client: httpx.AsyncClient, number: int) -> None:
    """An interactive request; it must be answered."""
    body = {
        "model": "gpt-4.1",
        "messages": [{"role": "user", "content": f"caller {number}"}],
        "max_tokens": 1,
    }
    answer = await client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text


async def callers(rig: Rig) -> int:
    """One request every second, whether or not the one before is answered: how many."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    asked = []
    async with rig.client() as client:
        while (elapsed_s := loop.time() - began_s) < LENGTH_S:
            due_s = len(asked) * EVERY_S
            if elapsed_s >= due_s:
                asked.append(asyncio.create_task(ask(client, len(asked))))
            else:
                await asyncio.sleep(due_s - elapsed_s)
        await asyncio.gather(*asked)
    return len(asked)


async def within(rig: Rig, bound_s: float) -> float:
    """How many interactive requests waited no longer than this for admission, by the service's own count: what a busy
    machine adds on the way is not the queue's."""
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"http://127.0.0.1:{rig.metrics_port}/metrics")).text
    name = f'ai_client_queue_wait_seconds_bucket{{le="{bound_s}",priority="5"}}'
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(name))


async def test_interactive_requests_do_not_wait_for_a_batch_that_uses_the_rest(tmp_path: Path) -> None:
    """Both begin together, on a window that is empty yet. No caller waits longer in the queue than an answer takes, the
    provider refuses nothing, and 95 of 100 requests of the limit are used."""
    options = SimulatorOptions(latency_ms=SERVICE_S * 1000, limit_rpm=LIMIT_RPM)
    extra = f"rate_limit = {LIMIT_RPM}\nmax_concurrent_requests = 50"
    async with Simulator(options) as simulator, running_service(tmp_path, simulator, extra=extra) as rig:
        write_input(tmp_path / "in.jsonl", 600)
        batch = await start(rig)
        await until(lambda: simulator.counts.answered >= 1, what="the batch to begin")
        asked = await callers(rig)
        batch.terminate()
        await batch.communicate()
        used = simulator.peak_per_minute()
        assert await within(rig, SERVICE_S) == asked
    assert simulator.counts.by_status[429] == 0
    assert LEAST_USE * LIMIT_RPM <= used <= LIMIT_RPM

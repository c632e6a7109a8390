"""Responses that go on in the background, and what is read of them: on the real service, its ledger and its window."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from ai_client.testing import Simulator
from tests.client.service_rig import Rig, running_service

# Room for one reserve, and for another beside what the first one used: the simulator writes 8,192 tokens at most.
BUDGET = "rate_limit = 60000\ntoken_limit = 100000\n[model_costs]\ngpt-4.1 = 100\n[budget]\ndaily_usd = 2.2\n"
ASKED = {"model": "gpt-4.1", "input": "hello", "max_output_tokens": 12_000}


@asynccontextmanager
async def service(folder: Path, extra: str = BUDGET) -> AsyncIterator[tuple[Rig, httpx.AsyncClient]]:
    async with (
        Simulator() as simulator,
        running_service(folder, simulator, extra=extra) as rig,
        rig.client() as client,
    ):
        yield rig, client


async def until_spent(rig: Rig, at_most_usd: float, requests: int) -> dict[str, Any]:
    """What `ai-client usage` sums up, once it is that little."""
    async with asyncio.timeout(15):
        while True:
            told = await rig.command("usage", "--json")
            total: dict[str, Any] = json.loads(told.out)["total"]
            if total["requests"] == requests and float(total["cost_usd"]) <= at_most_usd:
                return total
            await asyncio.sleep(0.05)


async def test_a_response_of_the_background_is_booked_by_what_it_used(tmp_path: Path) -> None:
    """Whole until somebody is told what it used; then that, however often they ask."""
    async with service(tmp_path) as (rig, client):
        made = (await client.post("/v1/responses", json=ASKED | {"background": True})).json()
        assert (made["status"], made["usage"]) == ("queued", None)
        refused = await client.post("/v1/responses", json=ASKED)
        assert refused.json()["error"]["code"] == "budget_exceeded"
        path = f"/v1/responses/{made['id']}"
        told = [(await client.get(path)).json() for _ in range(4)]
        assert [each["status"] for each in told] == ["queued", "in_progress", "completed", "completed"]
        used = told[-1]["usage"]["total_tokens"]
        total = await until_spent(rig, used * 100e-6, requests=1)
        assert (total["unknown_requests"], total["output_tokens"]) == (0, told[-1]["usage"]["output_tokens"])
        assert (await client.post("/v1/responses", json=ASKED)).status_code == 200


async def test_a_stream_that_is_cut_is_booked_by_what_its_response_used(tmp_path: Path) -> None:
    """It goes on upstream though its connection is lost; who asks for it later brings its usage."""
    async with service(tmp_path) as (rig, client):
        words = ASKED | {"stream": True, "input": "word " * 60, "x_simulator_fault": "cut"}
        text = ""
        with suppress(httpx.RemoteProtocolError):
            async with client.stream("POST", "/v1/responses", json=words) as answer:
                async for line in answer.aiter_lines():
                    text += line
        stored_id = re.findall(r"resp_\d+", text)[0]
        assert "response.completed" not in text
        told = (await client.get(f"/v1/responses/{stored_id}")).json()
        total = await until_spent(rig, told["usage"]["total_tokens"] * 100e-6, requests=1)
        assert total["unknown_requests"] == 0


async def test_reading_takes_no_tokens(tmp_path: Path) -> None:
    """Who polls a response uses up neither the minute's tokens, nor counts them again in the metrics."""
    async with service(tmp_path, "rate_limit = 60000\ntoken_limit = 100000\n") as (_, client):
        made = (await client.post("/v1/responses", json=ASKED | {"input": "word " * 2_000})).json()

        async def used() -> int:
            return int((await client.get("/status.json")).json()["limits"]["tpm_used"])

        before = await used()
        assert before == made["usage"]["total_tokens"]
        for path in (f"responses/{made['id']}", f"responses/{made['id']}/input_items", "files", "models"):
            assert (await client.get(f"/v1/{path}")).status_code == 200
        assert await used() == before

"""`batch_process` of the public client against the simulator."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from ai_client import AIAPIClient
from ai_client.contract.request import Request
from ai_client.errors import (
    BadRequestError,
    ModelNotFoundError,
)
from ai_client.testing import Simulator, SimulatorOptions
from tests.client.admission.scheduling import until

KEY = "hs_test_0123456789abcdef"
HELLO = [{"role": "user", "content": "hello there"}]


async def test_a_batch_keeps_its_order_and_puts_errors_in_their_place() -> None:
    """Prompts, message lists, mappings and requests, mixed."""
    async with Simulator() as upstream, AIAPIClient(KEY, upstream.base_url, 3) as client:
        answers = await client.batch_process(
            [
                "first",
                [{"role": "user", "content": "second"}],
                {"messages": HELLO, "model": "no-such-model"},
                {"messages": HELLO, "max_tokens": 5},
                Request(endpoint="chat/completions", body={"model": "gpt-4.1", "messages": HELLO}),
            ]
        )
    assert [type(answer) for answer in answers] == [dict, dict, ModelNotFoundError, dict, dict]
    assert [answer["model"] for answer in answers if isinstance(answer, dict)] == [
        "deepseek-v3.2",
        "deepseek-v3.2",
        "deepseek-v3.2",
        "gpt-4.1",
    ]


async def test_a_large_batch_does_not_flood_the_queue() -> None:
    """More requests than the queue holds; no more at once than allowed."""
    async with Simulator() as upstream, AIAPIClient(KEY, upstream.base_url, 8, None) as client:
        answers = await client.batch_process([f"prompt {index}" for index in range(400)])
    assert all(isinstance(answer, dict) for answer in answers)
    assert upstream.counts.peak_in_flight <= 8


async def test_an_empty_batch_is_an_empty_list() -> None:
    """No upstream call."""
    async with Simulator() as upstream, AIAPIClient(KEY, upstream.base_url) as client:
        assert await client.batch_process([]) == []
    assert upstream.counts.arrivals == 0


async def test_a_cancelled_batch_cancels_its_requests() -> None:
    """Nothing goes on behind the caller's back."""
    async with (
        Simulator(SimulatorOptions(latency_ms=60_000)) as upstream,
        AIAPIClient(KEY, upstream.base_url, 4) as client,
    ):
        task = asyncio.ensure_future(client.batch_process(["x"] * 20))
        await until(lambda: upstream.counts.in_flight == 4)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: upstream.counts.in_flight == 0)
        assert (client.get_stats()["in_flight"], client.get_stats()["queued"]) == (0, 0)


async def test_a_request_of_a_batch_may_have_a_priority_of_its_own() -> None:
    """It steers the queue and is told as every priority is; no provider gets it in a body."""
    prompt = [{"role": "user", "content": "x"}]
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"choices": [{"message": {"content": "y"}, "finish_reason": "stop"}]})

    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http,
        AIAPIClient(KEY, "http://provider.example/v1", http_client=http) as client,
    ):
        urgent, plain, wrong = await client.batch_process(
            [
                {"messages": prompt, "priority": 0},
                {"messages": prompt},
                {"messages": prompt, "priority": "now"},
            ],
            priority=7,
        )
    assert sorted(request.headers["x-priority"] for request in seen) == ["0", "7"]
    assert all("priority" not in json.loads(request.content) for request in seen)
    assert isinstance(urgent, dict)
    assert isinstance(plain, dict)
    assert isinstance(wrong, BadRequestError)
    assert "priority: is 'now'" in str(wrong)

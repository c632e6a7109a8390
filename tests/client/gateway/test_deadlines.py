"""A caller's deadline counts from its request's arrival, and holds in every phase."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ai_client import AIAPIClient, Request
from ai_client.errors import ModelNotFoundError
from ai_client.testing import Simulator
from tests.client.service_rig import running_service

CHAT = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
DEADLINE_S = 1.0
# The deadline, and a busy machine.
PATIENCE_S = 4.0


async def test_a_deadline_ends_the_wait_for_a_batch_requests_turn(tmp_path: Path) -> None:
    """At 20 a minute the fourth batch request would have its turn after nine seconds."""
    async with (
        Simulator() as simulator,
        running_service(tmp_path, simulator, extra="rate_limit = 20") as rig,
        rig.client() as client,
    ):
        headers = {"x-priority": "9", "x-ai-deadline": str(DEADLINE_S)}
        async with asyncio.timeout(PATIENCE_S):
            answers = await asyncio.gather(
                *(
                    client.post("/v1/chat/completions", json=CHAT | {"seed": number}, headers=headers)
                    for number in range(4)
                )
            )
    codes = [answer.json()["error"]["code"] for answer in answers if answer.status_code == 504]
    assert codes
    assert set(codes) == {"deadline_exceeded"}


async def test_the_names_of_models_hold_no_error_back() -> None:
    """With the window full, asking for them would take a minute, and a request of the quota."""
    async with (
        Simulator() as simulator,
        AIAPIClient("hs_test_0123456789", simulator.base_url, requests_per_minute=1) as client,
    ):
        unknown = CHAT | {"model": "no-such"}
        request = Request(endpoint="chat/completions", body=unknown, deadline_s=DEADLINE_S)
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(ModelNotFoundError):
                await client.send(request)
        assert simulator.counts.arrivals == 1

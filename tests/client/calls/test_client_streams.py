"""Streams of the public client against the simulator."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest

from ai_client import AIAPIClient
from ai_client.errors import (
    DeadlineExceeded,
)
from ai_client.testing import Simulator, SimulatorOptions
from tests.client.admission.scheduling import until

KEY = "hs_test_0123456789abcdef"
HELLO = [{"role": "user", "content": "hello there"}]


async def _drain(chunks: AsyncIterator[object]) -> None:
    async for _ in chunks:
        pass


async def test_a_streamed_completion_comes_chunk_by_chunk() -> None:
    """Parsed; without the usage event that only the client asked for."""
    async with Simulator() as upstream, AIAPIClient(KEY, upstream.base_url) as client:
        chunks = [chunk async for chunk in client.stream_chat_completion(HELLO, max_tokens=20)]
        stats = client.get_stats()
    assert all(chunk["choices"] for chunk in chunks)
    assert chunks[-1]["choices"][0]["finish_reason"]
    assert stats["output_tokens"] > 0
    assert stats["in_flight"] == 0


async def test_a_caller_who_asks_for_usage_gets_it() -> None:
    """Then the stream is passed on as it came."""
    async with Simulator() as upstream, AIAPIClient(KEY, upstream.base_url) as client:
        chunks = [
            chunk
            async for chunk in client.stream_chat_completion(HELLO, stream_options={"include_usage": True})
        ]
    assert chunks[-1]["usage"]["prompt_tokens"] > 0


async def test_leaving_a_stream_early_gives_everything_back() -> None:
    """The connection is dropped, the permit and the pool are free."""
    async with (
        Simulator(SimulatorOptions(token_ms=20)) as upstream,
        AIAPIClient(KEY, upstream.base_url) as client,
    ):
        async for _ in client.stream_chat_completion(HELLO, max_tokens=200):
            break
        gc.collect()
        await until(lambda: client.get_stats()["in_flight"] == 0)
        await until(lambda: upstream.counts.in_flight == 0)
        assert client.get_stats()["pool"]["in_use"] == 0


async def test_the_deadline_holds_within_a_stream() -> None:
    """The chunks until then have come."""
    async with (
        Simulator(SimulatorOptions(token_ms=50)) as upstream,
        AIAPIClient(KEY, upstream.base_url) as client,
    ):
        chunks = client.stream_chat_completion(HELLO, deadline_s=0.3, max_tokens=500)
        assert await anext(chunks)
        with pytest.raises(DeadlineExceeded):
            await asyncio.wait_for(_drain(chunks), 10)
        assert client.get_stats()["in_flight"] == 0

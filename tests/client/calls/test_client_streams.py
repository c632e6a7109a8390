"""Streams of the public client against the simulator."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest

from ai_client import AIAPIClient
from ai_client.contract.options import ClientOptions, RetryOptions
from ai_client.contract.request import Request
from ai_client.errors import DeadlineExceeded, ServerError
from ai_client.testing import Simulator, SimulatorOptions
from tests.client.admission.scheduling import until
from tests.client.transport.upstreams import Connection, serving

KEY = "hs_test_0123456789abcdef"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
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


ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
END = b'data: {"choices":[{"index":0,"delta":{"content":"all"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
FAULT = b'data: {"error":{"message":"overloaded","code":503}}\n\n'


@pytest.mark.parametrize("end", [END, FAULT])
async def test_a_role_waits_for_its_answer_only_so_long(end: bytes) -> None:
    """A model that thinks long: its caller has the status and what came; an error then is one within the answer."""
    go_on = asyncio.Event()

    async def serve(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(STREAM_HEAD + ROLE)
        await go_on.wait()
        await connection.send(end)

    options = ClientOptions(retry=RetryOptions(heads_wait_s=0.05))
    request = Request(endpoint="chat/completions", body={"model": "m", "messages": HELLO}, stream=True)
    async with (
        serving(serve) as upstream,
        AIAPIClient(KEY, f"http://localhost:{upstream.port}/v1", options=options) as client,
    ):
        async with await client.stream(request) as stream:
            assert await anext(stream) == ROLE
            go_on.set()
            if end == FAULT:
                with pytest.raises(ServerError):
                    await anext(stream)
            else:
                assert b"".join([piece async for piece in stream]) == END
        assert len(upstream.requests) == 1
        assert client.get_stats()["in_flight"] == 0


async def test_who_leaves_while_a_role_waits_leaves_nothing_behind() -> None:
    """Neither a task nor a connection; comments have come at once."""

    async def serve(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(STREAM_HEAD + ROLE + b": working\n\n")
        await connection.reader.read()

    request = Request(endpoint="chat/completions", body={"model": "m", "messages": HELLO}, stream=True)
    async with serving(serve) as upstream, AIAPIClient(KEY, f"http://localhost:{upstream.port}/v1") as client:
        async with await client.stream(request) as stream:
            assert await anext(stream) == b": working\n\n"
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(stream), 0.05)
        assert client.get_stats()["pool"]["in_use"] == 0
        assert not [task for task in asyncio.all_tasks() if "DirectStream.read" in repr(task)]

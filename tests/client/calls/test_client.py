"""The public client against the simulator: what users call, and what they get."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
from contextlib import AsyncExitStack

import pytest

from ai_client import AIAPIClient, Limits, TokenBucket
from ai_client.errors import (
    ClientClosedError,
    DeadlineExceeded,
    ModelNotFoundError,
    RateLimitError,
)
from ai_client.testing import Simulator, SimulatorOptions
from ai_client.testing.faults import Fault
from tests.client.admission.scheduling import until

KEY = "hs_test_0123456789abcdef"
HELLO = [{"role": "user", "content": "hello there"}]


async def test_a_chat_completion_is_the_parsed_answer() -> None:
    """With the defaults of existing scripts."""
    async with Simulator() as upstream, AIAPIClient(KEY, upstream.base_url) as client:
        answer = await client.chat_completion(HELLO, temperature=0.5, max_tokens=20)
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "gpt-4.1"
    assert answer["choices"][0]["message"]["content"]
    assert upstream.arrivals[-1].priority == "5"


async def test_it_works_without_a_context_manager() -> None:
    """As existing scripts use it; and closing twice is fine."""
    async with Simulator() as upstream:
        client = AIAPIClient(KEY, upstream.base_url, 10, 600)
        assert await client.chat_completion(HELLO, "deepseek-v3.2", 0)
        await client.aclose()
        await client.aclose()
        with pytest.raises(ClientClosedError):
            await client.chat_completion(HELLO)
    assert upstream.arrivals[-1].priority == "0"


async def test_a_script_that_never_closes_it_ends_without_a_word() -> None:
    """No warning about unclosed sessions, and exit code 0."""
    script = textwrap.dedent(
        """
        import asyncio, sys
        from ai_client import AIAPIClient

        async def main():
            asyncio.get_running_loop().slow_callback_duration = 60  # a busy machine is no fault of the script
            client = AIAPIClient("hs_test_0123456789abcdef", sys.argv[1])
            print((await client.chat_completion([{"role": "user", "content": "hi"}]))["object"])

        asyncio.run(main())
        """
    )
    async with Simulator() as upstream:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-X",
            "dev",
            "-W",
            "ignore::ResourceWarning",
            "-c",
            script,
            upstream.base_url,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        async with asyncio.timeout(30):
            out, err = await process.communicate()
    assert (process.returncode, out.decode(), err.decode()) == (0, "chat.completion\n", "")


async def test_it_lives_in_an_exit_stack() -> None:
    """Several clients, closed in the reverse order, also when one of the tasks fails."""
    async with Simulator() as upstream:

        async def work() -> None:
            async with AsyncExitStack() as stack:
                clients = [
                    await stack.enter_async_context(AIAPIClient(KEY, upstream.base_url)) for _ in range(3)
                ]
                await asyncio.gather(*(client.chat_completion(HELLO) for client in clients))
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await work()
        await until(lambda: upstream.connections == 0)


async def test_embeddings_come_in_the_order_of_their_texts() -> None:
    """One vector a text; one text is a list of one."""
    async with Simulator() as upstream, AIAPIClient(KEY, upstream.base_url) as client:
        model = next(name for name in await client.models() if "embedding" in name)
        vectors = await client.embeddings(["a", "b", "c"], model)
        alone = await client.embeddings("b", model)
    assert len(vectors) == 3
    assert vectors[1] == alone[0] != vectors[0]


async def test_a_wrong_model_name_is_told_with_the_right_ones() -> None:
    """The names are asked of the upstream."""
    async with Simulator() as upstream, AIAPIClient(KEY, upstream.base_url) as client:
        with pytest.raises(ModelNotFoundError) as caught:
            await client.chat_completion(HELLO, model="gpt-41")
    assert caught.value.nearest == "gpt-4.1"
    assert "deepseek-v3.2" in caught.value.available


async def test_limits_change_under_a_running_client() -> None:
    """Those who wait for the old limit go."""
    async with (
        Simulator(SimulatorOptions(latency_ms=5)) as upstream,
        AIAPIClient(KEY, upstream.base_url, 1, 2) as client,
    ):
        tasks = [asyncio.ensure_future(client.chat_completion(HELLO)) for _ in range(20)]
        await until(lambda: upstream.counts.answered == 2 and client.get_stats()["queued"] == 18)
        client.reconfigure(limits=Limits(10, 1000))
        await asyncio.gather(*tasks)
    assert 1 < upstream.counts.peak_in_flight <= 10


async def test_the_deadline_holds_for_the_whole_request() -> None:
    """Upstream time included; everything is given back."""
    async with (
        Simulator(SimulatorOptions(latency_ms=60_000)) as upstream,
        AIAPIClient(KEY, upstream.base_url) as client,
    ):
        with pytest.raises(DeadlineExceeded) as caught:
            await client.chat_completion(HELLO, deadline_s=0.2)
        assert caught.value.phase == "upstream"
        await until(lambda: upstream.counts.in_flight == 0)
        assert client.get_stats()["in_flight"] == 0


async def test_a_rate_limit_that_outlasts_the_deadline_is_told_at_once() -> None:
    """With the upstream's Retry-After."""
    async with Simulator() as upstream, AIAPIClient(KEY, upstream.base_url) as client:
        upstream.faults.add(Fault("status", 429, retry_after="30"))
        with pytest.raises(RateLimitError) as caught:
            await client.chat_completion(HELLO, deadline_s=5.0)
    assert caught.value.retry_after_s == 30.0


async def test_a_restart_opens_no_second_window() -> None:
    """The next client counts what the first one sent."""
    async with Simulator(SimulatorOptions(limit_rpm=5)) as upstream:
        async with AIAPIClient(KEY, upstream.base_url, 10, 5) as client:
            await asyncio.gather(*(client.chat_completion(HELLO) for _ in range(5)))
            state = json.loads(json.dumps(client.snapshot()))
        async with AIAPIClient(KEY, upstream.base_url, 10, 5) as client:
            assert client.restore(state) == 5
            with pytest.raises(DeadlineExceeded):
                await client.chat_completion(HELLO, deadline_s=10.0)
    assert upstream.counts.by_status == {200: 5}


async def test_the_token_bucket_is_public() -> None:
    """As existing scripts use it."""
    bucket = TokenBucket(2, 1000.0)
    assert [await bucket.acquire(), await bucket.acquire(tokens=1), await bucket.acquire()] == [True] * 3

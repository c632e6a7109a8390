"""The public client against the simulator: what users call, and what they get."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
import pytest

from ai_client import AIAPIClient, KeyProvider, Limits, TokenBucket
from ai_client.errors import (
    AuthenticationError,
    BadRequestError,
    ClientClosedError,
    DeadlineExceeded,
    MalformedResponseError,
    ModelNotFoundError,
    RateLimitError,
)
from ai_client.events import Event, Failed, Settled
from ai_client.request import Importance, Request
from ai_client.routing import ImportanceRouting
from ai_client.testing import Simulator, SimulatorOptions
from ai_client.testing.faults import Fault
from tests.client.scheduling import until

KEY = "hs_test_0123456789abcdef"
HELLO = [{"role": "user", "content": "hello there"}]


async def _drain(chunks: AsyncIterator[object]) -> None:
    async for _ in chunks:
        pass


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


async def test_it_can_be_used_from_one_event_loop_after_another() -> None:
    """Scripts call asyncio.run more than once."""
    async with Simulator() as upstream:
        client = AIAPIClient(KEY, upstream.base_url)

        def run() -> str:
            answer = asyncio.run(client.chat_completion(HELLO))
            return str(answer["object"])

        for _ in range(2):
            assert await asyncio.to_thread(run) == "chat.completion"


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


async def test_embeddings_come_in_the_order_of_their_texts() -> None:
    """One vector a text; one text is a list of one."""
    async with Simulator() as upstream, AIAPIClient(KEY, upstream.base_url) as client:
        model = next(name for name in await client.models() if "embedding" in name)
        vectors = await client.embeddings(["a", "b", "c"], model)
        alone = await client.embeddings("b", model)
    assert len(vectors) == 3
    assert vectors[1] == alone[0] != vectors[0]


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


async def test_statistics_count_requests_and_attempts() -> None:
    """`error_rate`: errors over attempts that ended."""
    async with Simulator() as upstream, AIAPIClient(KEY, upstream.base_url) as client:
        assert client.get_stats()["error_rate"] == 0.0
        for _ in range(3):
            await client.chat_completion(HELLO)
        upstream.faults.add(Fault("status", 400))
        with pytest.raises(BadRequestError):
            await client.chat_completion(HELLO)
        stats = client.get_stats()
    assert (stats["requests"], stats["errors"], stats["error_rate"]) == (4, 1, 0.25)
    assert (stats["total_requests"], stats["total_errors"]) == (4, 1)
    assert stats["input_tokens"] > 0
    assert stats["models"]["gpt-4.1"] == {"concurrency_limit": 50, "breaker": "closed"}
    json.dumps({**stats, "routing": None})


async def test_a_wrong_model_name_is_told_with_the_right_ones() -> None:
    """The names are asked of the upstream."""
    async with Simulator() as upstream, AIAPIClient(KEY, upstream.base_url) as client:
        with pytest.raises(ModelNotFoundError) as caught:
            await client.chat_completion(HELLO, model="gpt-41")
    assert caught.value.nearest == "gpt-4.1"
    assert "deepseek-v3.2" in caught.value.available


async def test_a_refused_key_is_not_tried_again() -> None:
    """One arrival, one clear error without the key."""
    options = SimulatorOptions(keys=frozenset({"hs_test_another_key"}))
    async with Simulator(options) as upstream, AIAPIClient(KEY, upstream.base_url) as client:
        with pytest.raises(AuthenticationError) as caught:
            await client.chat_completion(HELLO)
    assert upstream.counts.arrivals == 1
    assert KEY not in str(caught.value)
    assert caught.value.key_fingerprint == client.keys.current.fingerprint


async def test_a_request_refused_during_a_rotation_is_sent_once_more_with_the_new_key() -> None:
    """No request fails while the key is rotated."""
    new = "hs_test_the_new_one_123"
    options = SimulatorOptions(keys=frozenset({KEY, new}), latency_ms=1)
    async with Simulator(options) as upstream, AIAPIClient(KEY, upstream.base_url, 20, None) as client:

        async def stream_of_requests() -> None:
            for _ in range(40):
                await client.chat_completion(HELLO)

        workers = [asyncio.ensure_future(stream_of_requests()) for _ in range(10)]
        await until(lambda: upstream.counts.answered > 100)
        client.keys.rotate(KEY, following=new)
        upstream.accepted_keys.discard(KEY)
        await asyncio.gather(*workers)
    assert upstream.counts.by_status[401] > 0
    assert upstream.counts.by_status[200] == 400


async def test_a_rotated_key_is_read_from_its_source_when_the_old_one_is_refused() -> None:
    """The upstream may know before this process is told."""
    new = "hs_test_the_new_one_123"
    keys = KeyProvider(KEY, reload=lambda: new)
    async with (
        Simulator(SimulatorOptions(keys=frozenset({new}))) as upstream,
        AIAPIClient(keys, upstream.base_url) as client,
    ):
        assert await client.chat_completion(HELLO)
    assert [arrival.status for arrival in upstream.arrivals] == [401, 200]


async def test_a_key_is_rotated_under_a_running_client() -> None:
    """`reconfigure` swaps it for the next attempt."""
    async with Simulator() as upstream, AIAPIClient(KEY, upstream.base_url) as client:
        await client.chat_completion(HELLO)
        upstream.accepted_keys.add("hs_test_the_new_one_123")
        client.reconfigure(api_key="hs_test_the_new_one_123")
        await client.chat_completion(HELLO)
    assert upstream.counts.by_status == {200: 2}


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


async def test_importance_chooses_the_model() -> None:
    """And the report tells the shares."""
    routing = ImportanceRouting(ordinary="deepseek-v3.2", critical="gpt-4.1", critical_share=0.2)
    seen: list[Event] = []
    async with Simulator() as upstream, AIAPIClient(KEY, upstream.base_url, routing=routing) as client:
        client.events.subscribe(seen.append)
        cheap = await client.chat_completion(HELLO, "claude-sonnet-4.5", importance=Importance.ORDINARY)
        strong = await client.chat_completion(HELLO, "claude-sonnet-4.5", importance=Importance.CRITICAL)
        stats = client.get_stats()
    assert (cheap["model"], strong["model"]) == ("deepseek-v3.2", "gpt-4.1")
    assert stats["routing"].actual_critical_share == 0.5
    settled = [event for event in seen if isinstance(event, Settled)]
    assert [(event.asked_model, event.model) for event in settled] == [
        ("claude-sonnet-4.5", "deepseek-v3.2"),
        ("claude-sonnet-4.5", "gpt-4.1"),
    ]


async def test_an_httpx_client_of_ones_own_is_used_and_not_closed() -> None:
    """With all that its owner has set up: here a mock transport."""
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(
            200, json={"model": "gpt-4.1", "usage": {"prompt_tokens": 5, "completion_tokens": 2}}
        )

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http_client:
        async with AIAPIClient(KEY, "http://upstream.test/v1", http_client=http_client) as client:
            assert (await client.chat_completion(HELLO))["model"] == "gpt-4.1"
            assert client.get_stats()["input_tokens"] == 5
        assert not http_client.is_closed
    assert str(seen[0].url) == "http://upstream.test/v1/chat/completions"
    assert seen[0].headers["authorization"] == f"Bearer {KEY}"


async def test_unknown_parameters_go_upstream_untouched() -> None:
    """New features of the API need no new client."""
    bodies: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(request.content)
        return httpx.Response(200, json={})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http_client:
        client = AIAPIClient(KEY, "http://upstream.test/v1", http_client=http_client)
        await client.chat_completion(HELLO, brand_new={"deep": [1, None, "ä"]})
    assert json.loads(bodies[0])["brand_new"] == {"deep": [1, None, "ä"]}


@pytest.mark.parametrize("body", ["[]", "no json", '{"choices": [', ""])
async def test_an_answer_that_is_no_json_object_is_malformed(body: str) -> None:
    """Not passed on as if it were one."""
    transport = httpx.MockTransport(lambda _: httpx.Response(200, text=body))
    async with httpx.AsyncClient(transport=transport) as http_client:
        client = AIAPIClient(KEY, "http://upstream.test/v1", http_client=http_client)
        with pytest.raises(MalformedResponseError):
            await client.chat_completion(HELLO)


async def test_an_error_inside_a_200_is_an_error() -> None:
    """Some proxies answer so."""
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json={"error": {"message": "overloaded"}}))
    async with httpx.AsyncClient(transport=transport) as http_client:
        client = AIAPIClient(KEY, "http://upstream.test/v1", http_client=http_client)
        with pytest.raises(MalformedResponseError, match="overloaded"):
            await client.chat_completion(HELLO)


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


async def test_events_hold_no_text_and_no_key() -> None:
    """Of a success, a failure and a stream."""
    seen: list[Event] = []
    secret_text = "the quick brown secret"
    messages = [{"role": "user", "content": secret_text}]
    async with Simulator() as upstream, AIAPIClient(KEY, upstream.base_url) as client:
        client.events.subscribe(seen.append)
        await client.chat_completion(messages)
        async for _ in client.stream_chat_completion(messages):
            pass
        with pytest.raises(ModelNotFoundError):
            await client.chat_completion(messages, model="no-such-model")
    text = repr(seen)
    assert secret_text not in text
    assert KEY not in text
    assert client.keys.current.fingerprint in text
    assert (
        sum(isinstance(event, Settled) for event in seen) == 3
    )  # the third: the models, for the error's text
    assert sum(isinstance(event, Failed) for event in seen) == 1


async def test_settled_tells_where_the_time_went() -> None:
    """Queue, upstream, and the rest, which is our own."""
    seen: list[Event] = []
    async with (
        Simulator(SimulatorOptions(latency_ms=500)) as upstream,
        AIAPIClient(KEY, upstream.base_url, 1) as client,
    ):
        client.events.subscribe(seen.append)
        await asyncio.gather(client.chat_completion(HELLO), client.chat_completion(HELLO))
    first, second = (event for event in seen if isinstance(event, Settled))
    assert first.upstream_s >= 0.5
    assert second.waited_s >= 0.49
    for event in (first, second):
        overhead_s = event.latency_s - event.waited_s - event.upstream_s
        assert 0 <= overhead_s < 0.49


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

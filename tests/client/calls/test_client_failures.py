"""The client against a simulator that misbehaves: what is sent again, what is not, and what is left behind."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ai_client import AIAPIClient
from ai_client.contract.events import BreakerChanged, Event, FellBack, Retried, Throttled
from ai_client.contract.options import BreakerOptions, ClientOptions, QueueOptions, RetryOptions
from ai_client.contract.request import Request
from ai_client.errors import (
    AIClientError,
    BadRequestError,
    BreakerOpenError,
    ConnectionLostError,
    MalformedResponseError,
    MaxRetriesExceeded,
    OverloadError,
    ServerError,
    TransportTimeoutError,
)
from ai_client.testing import Simulator, SimulatorOptions
from ai_client.testing.faults import Fault
from ai_client.transport.base import Timeouts, TransportOptions
from tests.client.admission.scheduling import until

pytestmark = pytest.mark.slow

KEY = "hs_test_0123456789abcdef"
HELLO = [{"role": "user", "content": "hello there"}]
QUICK = RetryOptions(backoff_base_s=0.01, backoff_cap_s=0.05)
NO_BREAKER = BreakerOptions(min_attempts=1000, window=1000)


def chat(**more: Any) -> Request:
    return Request(endpoint="chat/completions", body={"model": "gpt-4.1", "messages": HELLO}, **more)


@asynccontextmanager
async def pair(
    options: ClientOptions | None = None, *, simulator: SimulatorOptions | None = None, **more: Any
) -> AsyncIterator[tuple[Simulator, AIAPIClient, list[Event]]]:
    """A simulator, a client of it, and the client's events; in the end nothing may be left."""
    seen: list[Event] = []
    options = options or ClientOptions(retry=QUICK)
    async with (
        Simulator(simulator) as upstream,
        AIAPIClient(KEY, upstream.base_url, options=options, **more) as client,
    ):
        client.events.subscribe(seen.append)
        yield upstream, client, seen
        stats = client.get_stats()
        assert (stats["in_flight"], stats["queued"], stats["pool"]["in_use"]) == (0, 0, 0)


async def test_a_passing_failure_is_retried_with_one_idempotency_key() -> None:
    """Twice 503, then the answer."""
    async with pair() as (upstream, client, seen):
        upstream.faults.add(Fault("status", 503), count=2)
        response = await client.send(chat())
        assert response.attempts == 3
    retried = [event for event in seen if isinstance(event, Retried)]
    assert [(event.error, event.status, event.attempt) for event in retried] == [
        ("ServerError", 503, 1),
        ("ServerError", 503, 2),
    ]
    assert len({event.request_id for event in retried}) == 1


async def test_it_gives_up_after_three_retries_and_tells_the_last_failure() -> None:
    """Four attempts in all."""
    async with pair() as (upstream, client, _):
        upstream.faults.add(Fault("status", 503), count=10)
        with pytest.raises(MaxRetriesExceeded) as caught:
            await client.send(chat())
    assert caught.value.attempts == upstream.counts.arrivals == 4
    assert isinstance(caught.value.last, ServerError)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("reset", ConnectionLostError),
        ("cut", ConnectionLostError),
        ("broken-json", MalformedResponseError),
        ("not-http", MalformedResponseError),
        ("hang", TransportTimeoutError),
        ("stall", TransportTimeoutError),
    ],
)
async def test_what_may_have_been_executed_goes_once(kind: str, error: type[AIClientError]) -> None:
    """A chat request is not sent again behind the caller's back; asked for, it is."""
    timeouts = Timeouts(headers_s=0.2, read_s=0.2)
    options = ClientOptions(retry=QUICK, transport=TransportOptions(timeouts=timeouts))
    async with pair(options) as (upstream, client, _):
        upstream.faults.add(Fault(kind))
        with pytest.raises(error):
            await client.send(chat())
        assert upstream.counts.arrivals == 1
        upstream.faults.add(Fault(kind))
        response = await client.send(chat(resend_unsafe=True))
        assert response.attempts == 2


async def test_embeddings_are_safe_to_send_again() -> None:
    """They only cost."""
    async with pair() as (upstream, client, _):
        model = next(name for name in await client.models() if "embedding" in name)
        upstream.faults.add(Fault("reset"))
        assert await client.embeddings("text", model)


async def test_the_callers_mistakes_are_not_sent_again() -> None:
    """400 once."""
    async with pair() as (upstream, client, _):
        upstream.faults.add(Fault("status", 400), count=5)
        with pytest.raises(BadRequestError):
            await client.send(chat())
    assert upstream.counts.arrivals == 1


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_waited_for(status: int) -> None:
    """In milliseconds here; never less."""
    async with pair() as (upstream, client, _):
        upstream.faults.add(Fault("status", status, retry_after_ms=300))
        await client.send(chat())
    first, second = (arrival.at_s for arrival in upstream.arrivals)
    assert 0.3 <= second - first < 1.5


async def test_one_429_slows_everybody_at_once() -> None:
    """No storm: those who wait stay back for as long as one was told, and then come one by one."""
    async with pair(simulator=SimulatorOptions(latency_ms=20), max_concurrent=2) as (upstream, client, seen):
        upstream.faults.add(Fault("status", 429, retry_after_ms=500), count=2)
        await asyncio.gather(*(client.send(chat()) for _ in range(12)))
    refused = [arrival.at_s for arrival in upstream.arrivals if arrival.status == 429]
    later = sorted(arrival.at_s for arrival in upstream.arrivals if arrival.status == 200)
    assert len(refused) == 2
    assert min(later) - max(refused) >= 0.5
    assert later[3] - later[0] > 0.2  # at half of what led to it, not all at once
    assert any(isinstance(event, Throttled) and event.rate_per_s is not None for event in seen)


async def test_another_model_is_not_slowed() -> None:
    """Limits are a model's own."""
    async with pair() as (upstream, client, _):
        upstream.faults.add(Fault("status", 429, retry_after_ms=2000), model="gpt-4.1")
        slow = asyncio.ensure_future(client.send(chat()))
        await until(lambda: upstream.counts.arrivals == 1)
        async with asyncio.timeout(1):
            await client.chat_completion(HELLO, model="deepseek-v3.2")
        assert not slow.done()
        slow.cancel()
        await asyncio.gather(slow, return_exceptions=True)


async def test_an_outage_never_multiplies_the_load_by_more_than_1_2() -> None:
    """Six hundred requests, all of them failing, each of which would go four times."""
    options = ClientOptions(retry=QUICK, breaker=NO_BREAKER)
    async with pair(options, requests_per_minute=None) as (upstream, client, _):
        upstream.faults.add(Fault("status", 503), count=10_000)
        results = await asyncio.gather(*(client.send(chat()) for _ in range(600)), return_exceptions=True)
    assert all(isinstance(result, MaxRetriesExceeded) for result in results)
    assert 600 < upstream.counts.arrivals <= 720


async def test_a_chain_of_fallbacks_does_not_multiply_the_load_either() -> None:
    """Three models, all of them down."""
    chain = ("deepseek-v3.2", "gemini-2.5-flash")
    options = ClientOptions(retry=QUICK, breaker=NO_BREAKER, fallback_chain=chain)
    async with pair(options, requests_per_minute=None) as (upstream, client, _):
        upstream.faults.add(Fault("status", 503), count=10_000)
        await asyncio.gather(*(client.send(chat()) for _ in range(600)), return_exceptions=True)
    assert 600 < upstream.counts.arrivals <= 720


async def test_a_model_in_trouble_is_replaced_by_the_next_of_the_chain() -> None:
    """After one retry; the answer names the model that gave it."""
    options = ClientOptions(retry=QUICK, fallback_chain=("deepseek-v3.2",))
    async with pair(options) as (upstream, client, seen):
        upstream.faults.add(Fault("status", 503), count=10, model="gpt-4.1")
        response = await client.send(chat())
    assert (response.model, response.json()["model"]) == ("deepseek-v3.2", "deepseek-v3.2")
    assert [arrival.model for arrival in upstream.arrivals] == ["gpt-4.1", "gpt-4.1", "deepseek-v3.2"]
    fell = [event for event in seen if isinstance(event, FellBack)]
    assert [(event.model, event.to_model) for event in fell] == [("gpt-4.1", "deepseek-v3.2")]


async def test_no_fallback_on_the_callers_mistakes() -> None:
    """400 is the same with any model."""
    options = ClientOptions(retry=QUICK, fallback_chain=("deepseek-v3.2",))
    async with pair(options) as (upstream, client, _):
        upstream.faults.add(Fault("status", 400), count=10)
        with pytest.raises(BadRequestError):
            await client.send(chat())
    assert upstream.counts.arrivals == 1


async def test_a_model_that_keeps_failing_is_left_alone_and_then_tried_once() -> None:
    """Open, half-open, closed; meanwhile callers learn at once when to come back."""
    breaker = BreakerOptions(window=10, min_attempts=4, open_s=1.0)
    options = ClientOptions(retry=RetryOptions(max_retries=0), breaker=breaker)
    async with pair(options) as (upstream, client, seen):
        upstream.faults.add(Fault("status", 500), count=4)
        for _ in range(4):
            with pytest.raises(ServerError):
                await client.send(chat())
        with pytest.raises(BreakerOpenError) as caught:
            await client.send(chat())
        assert 0 < caught.value.retry_after_s <= 1.0
        assert upstream.counts.arrivals == 4
        loop = asyncio.get_running_loop()
        over_at_s = loop.time() + 1.0
        await until(lambda: loop.time() > over_at_s)
        results = await asyncio.gather(*(client.send(chat()) for _ in range(5)), return_exceptions=True)
        assert Counter(type(result).__name__ for result in results)["BreakerOpenError"] == 4
        await client.send(chat())
    changes = [(event.before, event.after) for event in seen if isinstance(event, BreakerChanged)]
    assert changes == [("closed", "open"), ("open", "half-open"), ("half-open", "closed")]


async def test_with_an_open_breaker_the_chain_is_asked_at_once() -> None:
    """Nothing is sent to the model in trouble."""
    breaker = BreakerOptions(window=10, min_attempts=4, open_s=60)
    options = ClientOptions(
        retry=RetryOptions(max_retries=0), breaker=breaker, fallback_chain=("deepseek-v3.2",)
    )
    async with pair(options) as (upstream, client, _):
        upstream.faults.add(Fault("status", 500), count=4, model="gpt-4.1")
        for _ in range(10):
            assert (await client.send(chat())).model == "deepseek-v3.2"
    assert Counter(arrival.model for arrival in upstream.arrivals) == {"gpt-4.1": 4, "deepseek-v3.2": 10}


@pytest.mark.parametrize("kind", ["cut", "reset", "stall"])
async def test_a_stream_that_breaks_off_says_so_and_leaves_nothing(kind: str) -> None:
    """After the chunks that came."""
    timeouts = Timeouts(headers_s=2, read_s=0.2)
    options = ClientOptions(retry=QUICK, transport=TransportOptions(timeouts=timeouts))
    async with pair(options) as (upstream, client, _):
        upstream.faults.add(Fault(kind))
        with pytest.raises((ConnectionLostError, TransportTimeoutError)):
            async for _ in client.stream_chat_completion(HELLO, max_tokens=50):
                pass


async def test_a_stream_is_retried_only_before_its_first_byte() -> None:
    """A refusal is; what the caller has seen is not sent again."""
    async with pair() as (upstream, client, _):
        upstream.faults.add(Fault("status", 503))
        chunks = [chunk async for chunk in client.stream_chat_completion(HELLO)]
        assert chunks
        assert [arrival.status for arrival in upstream.arrivals] == [503, 200]


async def test_a_full_queue_is_an_overload_error() -> None:
    """With a hint when to come back."""
    options = ClientOptions(queue=QueueOptions(max_queued=3))
    async with pair(options, simulator=SimulatorOptions(latency_ms=200), max_concurrent=1) as (_, client, __):
        results = await asyncio.gather(*(client.send(chat()) for _ in range(6)), return_exceptions=True)
    refused = [result for result in results if isinstance(result, OverloadError)]
    assert len(refused) == 2
    assert all(error.retry_after_s is not None and error.retry_after_s >= 1 for error in refused)


async def test_closing_ends_those_who_wait() -> None:
    """With an error of ours, not by hanging."""
    async with Simulator(SimulatorOptions(latency_ms=60_000)) as upstream:
        client = AIAPIClient(KEY, upstream.base_url, 1)
        tasks = [asyncio.ensure_future(client.send(chat())) for _ in range(3)]
        await until(lambda: upstream.counts.in_flight == 1)
        await client.aclose()
        async with asyncio.timeout(5):
            results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, AIClientError) for result in results)


async def test_random_faults_and_cancellations_leave_nothing_behind() -> None:
    """Five hundred requests, whole and streamed, under every fault there is; then all counters are at zero."""
    dice = random.Random(11)  # noqa: S311 - a seeded run
    timeouts = Timeouts(headers_s=0.3, read_s=0.3)
    options = ClientOptions(
        retry=QUICK, transport=TransportOptions(timeouts=timeouts), fallback_chain=("deepseek-v3.2",)
    )
    kinds = [
        "hang",
        "reset",
        "broken-json",
        "cut",
        "stall",
        "not-http",
        "400",
        "500",
        "503",
    ]

    async def one(client: AIAPIClient) -> None:
        more: dict[str, Any] = {"deadline_s": dice.choice([None, None, 0.05, 0.5, 5.0])}
        if dice.random() < 0.2:
            more["x_simulator_fault"] = dice.choice(kinds)
        if dice.random() < 0.5:
            await client.chat_completion(HELLO, max_tokens=30, **more)
            return
        async for _ in client.stream_chat_completion(HELLO, max_tokens=30, **more):
            if dice.random() < 0.02:
                break

    async with pair(options, simulator=SimulatorOptions(latency_ms=5), max_concurrent=20) as (_, client, __):
        tasks = [asyncio.ensure_future(one(client)) for _ in range(500)]
        for task in dice.sample(tasks, 60):
            asyncio.get_running_loop().call_later(dice.random(), task.cancel)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        ours = AIClientError | asyncio.CancelledError
        assert all(result is None or isinstance(result, ours) for result in results)
        assert sum(result is None for result in results) > 150
        await until(lambda: client.get_stats()["in_flight"] == 0)

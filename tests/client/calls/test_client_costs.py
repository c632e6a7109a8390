"""Cache, single flight, merging and ledger, as the client uses them, against the simulator."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from ai_client import AIAPIClient
from ai_client.cache.response_cache import ResponseCache
from ai_client.contract.events import CacheHit, CacheMissed, Event, Failed, Settled
from ai_client.contract.options import BreakerOptions, CacheOptions, ClientOptions, RetryOptions
from ai_client.contract.request import CacheMode, Request
from ai_client.errors import (
    AIClientError,
    BadRequestError,
    BudgetExceeded,
    CacheMissError,
    ConnectionLostError,
    DeadlineExceeded,
    MaxRetriesExceeded,
)
from ai_client.ledger.budgets import ALL_TENANTS, Budget, BudgetPlan, Span
from ai_client.ledger.ledger import SpendLedger
from ai_client.ledger.owner import Fate
from ai_client.ledger.prices import Price, Prices, dollars_to_nusd
from ai_client.testing import Simulator, SimulatorOptions
from ai_client.testing.faults import Fault
from tests.client.admission.scheduling import until

KEY = "hs_test_0123456789abcdef"
HELLO = [{"role": "user", "content": "hello there"}]
LIST_PRICE = Price(dollars_to_nusd(8), dollars_to_nusd(8), dollars_to_nusd(4))
QUICK = RetryOptions(backoff_base_s=0.01, backoff_cap_s=0.05)


def chat(text: str = "hello there", **more: Any) -> Request:
    body = {"model": "gpt-4.1", "messages": [{"role": "user", "content": text}], "max_tokens": 50}
    return Request(endpoint="chat/completions", body=body, **more)


class Stage:
    """A simulator, and clients with a cache and a ledger in a temporary folder."""

    def __init__(self, stack: AsyncExitStack, folder: Path, upstream: Simulator) -> None:
        self._stack = stack
        self._folder = folder
        self.upstream = upstream
        self.seen: list[Event] = []

    async def client(
        self,
        *,
        with_cache: bool = False,
        daily_usd: float | None = None,
        options: ClientOptions | None = None,
        **more: Any,
    ) -> AIAPIClient:
        cache = None
        if with_cache:
            cache = ResponseCache(self._folder, scope=self.upstream.base_url, max_bytes=50_000_000)
            self._stack.callback(cache.close)
        budgets = () if daily_usd is None else (Budget(ALL_TENANTS, Span.DAY, dollars_to_nusd(daily_usd)),)
        ledger = SpendLedger(
            self._folder / "ledger.sqlite",
            prices=Prices({"gpt-4.1": LIST_PRICE, "deepseek-v3.2": LIST_PRICE}),
            plan=BudgetPlan(budgets=budgets),
        )
        self._stack.callback(ledger.close)
        client = AIAPIClient(
            KEY,
            self.upstream.base_url,
            cache=cache,
            ledger=ledger,
            options=options or ClientOptions(retry=QUICK),
            **more,
        )
        client.events.subscribe(self.seen.append)
        await self._stack.enter_async_context(client)
        self._ledger = ledger
        return client

    def booked(self) -> list[tuple[int, int | None]]:
        """(fate, cost) of every entry of the ledger, oldest first."""
        self._ledger.flush()
        with sqlite3.connect(self._folder / "ledger.sqlite") as db:
            return list(db.execute("SELECT fate, cost_nusd FROM entry ORDER BY id"))


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    async with AsyncExitStack() as stack:

        async def make(**simulator: Any) -> Stage:
            upstream = await stack.enter_async_context(Simulator(SimulatorOptions(**simulator)))
            return Stage(stack, tmp_path, upstream)

        yield make


SETTLED, RELEASED, BILLED_UNKNOWN = Fate.SETTLED, Fate.RELEASED, Fate.BILLED_UNKNOWN


def fates(stage: Stage) -> list[Fate]:
    return [Fate(fate) for fate, _ in stage.booked()]


async def test_a_second_equal_request_is_answered_from_the_cache(stage: Callable[..., Any]) -> None:
    """Byte by byte the same, at no cost."""
    scene = await stage()
    client = await scene.client(with_cache=True)
    first, second = await client.send(chat()), await client.send(chat())
    other = await client.send(chat("something else"))
    assert (first.cached, second.cached, other.cached) == (False, True, False)
    assert second.body == first.body
    assert (second.cost_usd, second.attempts, second.usage) == (0.0, 0, first.usage)
    assert scene.upstream.counts.arrivals == 2
    assert [type(event) for event in scene.seen if isinstance(event, CacheHit | CacheMissed)] == [
        CacheMissed,
        CacheHit,
        CacheMissed,
    ]
    stats = client.get_stats()
    assert (stats["cache_hits"], stats["cache_misses"]) == (1, 2)


async def test_another_tenant_never_gets_the_entry(stage: Callable[..., Any]) -> None:
    """The tenant is part of the key."""
    scene = await stage()
    client = await scene.client(with_cache=True)
    await client.send(chat(tenant="a"))
    assert not (await client.send(chat(tenant="b"))).cached


async def test_no_store_neither_reads_nor_writes(stage: Callable[..., Any]) -> None:
    """Per request."""
    scene = await stage()
    client = await scene.client(with_cache=True)
    for _ in range(2):
        assert not (await client.send(chat(cache_mode=CacheMode.NO_STORE))).cached
    assert not (await client.send(chat())).cached


async def test_only_if_cached_never_goes_upstream(stage: Callable[..., Any]) -> None:
    """Whole and streamed; also where there is no cache at all."""
    scene = await stage()
    for client in (await scene.client(with_cache=True), await scene.client()):
        with pytest.raises(CacheMissError):
            await client.send(chat(cache_mode=CacheMode.ONLY_IF_CACHED))
        with pytest.raises(CacheMissError):
            await client.stream(chat(cache_mode=CacheMode.ONLY_IF_CACHED, stream=True))
    assert scene.upstream.counts.arrivals == 0


async def test_an_endpoint_without_time_to_live_is_not_cached(stage: Callable[..., Any]) -> None:
    """TTL 0 turns it off for one endpoint."""
    scene = await stage()
    options = ClientOptions(cache=CacheOptions(ttl_by_endpoint={"chat/completions": 0.0}))
    client = await scene.client(with_cache=True, options=options)
    for _ in range(2):
        assert not (await client.send(chat())).cached


async def test_identical_requests_in_flight_are_one_upstream_call(stage: Callable[..., Any]) -> None:
    """Twenty callers, one arrival; the one who came first may leave."""
    scene = await stage(latency_ms=200)
    client = await scene.client(with_cache=True)
    tasks = [asyncio.ensure_future(client.send(chat())) for _ in range(20)]
    await until(lambda: scene.upstream.counts.in_flight == 1)
    tasks[0].cancel()
    answers = await asyncio.gather(*tasks[1:])
    assert scene.upstream.counts.arrivals == 1
    assert len({answer.body for answer in answers}) == 1
    assert len({answer.request_id for answer in answers}) == 19
    assert fates(scene) == [SETTLED]


async def test_who_joins_a_flight_keeps_its_own_deadline(stage: Callable[..., Any]) -> None:
    """The others go on."""
    scene = await stage(latency_ms=400)
    client = await scene.client(with_cache=True)
    patient = asyncio.ensure_future(client.send(chat()))
    await until(lambda: scene.upstream.counts.in_flight == 1)
    with pytest.raises(DeadlineExceeded):
        await client.send(chat(deadline_s=0.1))
    assert (await patient).status == 200
    assert scene.upstream.counts.arrivals == 1


async def read(client: AIAPIClient, request: Request) -> tuple[bytes, bool]:
    async with await client.stream(request) as response:
        body = b"".join([chunk async for chunk in response])
    return body, response.cached


async def test_a_stream_is_recorded_and_replayed(stage: Callable[..., Any]) -> None:
    """The same bytes; a stream and a whole answer are different entries."""
    scene = await stage()
    client = await scene.client(with_cache=True)
    first = await read(client, chat(stream=True))
    second = await read(client, chat(stream=True))
    assert (first[1], second[1]) == (False, True)
    assert second[0] == first[0]
    assert first[0].endswith(b"data: [DONE]\n\n")
    assert not (await client.send(chat())).cached
    assert fates(scene) == [SETTLED, SETTLED]


async def test_identical_streams_share_one_upstream_stream(stage: Callable[..., Any]) -> None:
    """Each reads all of it, also who comes later."""
    scene = await stage(token_ms=10)
    client = await scene.client(with_cache=True)
    readers = [asyncio.ensure_future(read(client, chat(stream=True))) for _ in range(3)]
    await until(lambda: scene.upstream.counts.in_flight == 1)
    readers += [asyncio.ensure_future(read(client, chat(stream=True))) for _ in range(3)]
    bodies = {body for body, _ in await asyncio.gather(*readers)}
    assert len(bodies) == 1
    assert scene.upstream.counts.arrivals == 1
    settled = [event for event in scene.seen if isinstance(event, Settled)]
    assert sorted(event.cached for event in settled) == [False] + [True] * 5


async def test_a_stream_that_broke_off_is_not_cached(stage: Callable[..., Any]) -> None:
    """Nor is an answer with an error."""
    scene = await stage()
    client = await scene.client(with_cache=True)
    scene.upstream.faults.add(Fault("cut"))
    with pytest.raises(ConnectionLostError):
        await read(client, chat(stream=True))
    scene.upstream.faults.add(Fault("status", 400))
    with pytest.raises(BadRequestError):
        await client.send(chat())
    assert (await read(client, chat(stream=True)))[1] is False
    assert (await client.send(chat())).cached is False


async def test_a_fallbacks_answer_is_not_cached_for_the_asked_model(stage: Callable[..., Any]) -> None:
    """When the model is back, its own answer is wanted."""
    scene = await stage()
    options = ClientOptions(retry=QUICK, fallback_chain=("deepseek-v3.2",))
    client = await scene.client(with_cache=True, options=options)
    scene.upstream.faults.add(Fault("status", 503), count=2, model="gpt-4.1")
    assert (await client.send(chat())).model == "deepseek-v3.2"
    answer = await client.send(chat())
    assert (answer.model, answer.cached) == ("gpt-4.1", False)


async def test_what_was_used_is_booked(stage: Callable[..., Any]) -> None:
    """Of whole answers and of streams whose callers did not ask for usage."""
    scene = await stage()
    client = await scene.client()
    response = await client.send(chat())
    assert response.usage is not None
    assert response.cost_usd == pytest.approx(response.usage.total_tokens * 8e-6)
    async with await client.stream(chat(stream=True)) as stream:
        async for _ in stream:
            pass
    assert stream.cost_usd == pytest.approx(response.cost_usd)
    assert fates(scene) == [SETTLED, SETTLED]


@pytest.mark.parametrize(
    ("kind", "fate"),
    [
        ("400", RELEASED),
        ("503", RELEASED),
        ("504", BILLED_UNKNOWN),
        ("reset", BILLED_UNKNOWN),
        ("broken-json", BILLED_UNKNOWN),
    ],
)
async def test_what_a_failure_may_have_cost_is_booked(
    stage: Callable[..., Any], kind: str, fate: Fate
) -> None:
    """A refusal is free; what may have been executed is booked as billed-unknown."""
    scene = await stage()
    client = await scene.client(options=ClientOptions(retry=RetryOptions(max_retries=0)))
    scene.upstream.faults.add(Fault("status", int(kind)) if kind.isdigit() else Fault(kind))
    with pytest.raises(AIClientError):
        await client.send(chat())
    assert fates(scene) == [fate]
    failed = next(event for event in scene.seen if isinstance(event, Failed))
    assert failed.billed_unknown is (fate == BILLED_UNKNOWN)


async def test_a_caller_who_leaves_leaves_a_booking(stage: Callable[..., Any]) -> None:
    """Of a whole answer, and of a stream half read: the upstream may have billed them."""
    scene = await stage(latency_ms=300, token_ms=20)
    client = await scene.client()
    task = asyncio.ensure_future(client.send(chat()))
    await until(lambda: scene.upstream.counts.in_flight == 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with await client.stream(chat(stream=True)) as stream:
        await anext(aiter(stream))
    assert fates(scene) == [BILLED_UNKNOWN, BILLED_UNKNOWN]
    assert client.get_stats()["in_flight"] == 0


async def test_each_retry_is_an_entry_of_its_own(stage: Callable[..., Any]) -> None:
    """Two refusals are given back, the answer is booked."""
    scene = await stage()
    client = await scene.client()
    scene.upstream.faults.add(Fault("status", 503), count=2)
    await client.send(chat())
    assert fates(scene) == [RELEASED, RELEASED, SETTLED]


async def test_a_spent_budget_stops_before_anything_is_sent(stage: Callable[..., Any]) -> None:
    """No permit is kept, no retry made, no other model asked."""
    scene = await stage()
    options = ClientOptions(
        retry=QUICK, fallback_chain=("deepseek-v3.2",), breaker=BreakerOptions(min_attempts=1)
    )
    client = await scene.client(daily_usd=0.0001, options=options)
    with pytest.raises(BudgetExceeded) as caught:
        await client.send(chat())
    assert caught.value.period == "day"
    assert scene.upstream.counts.arrivals == 0
    stats = client.get_stats()
    assert (stats["in_flight"], stats["window_requests"], stats["total_errors"]) == (0, 0, 0)
    assert stats["models"]["gpt-4.1"]["breaker"] == "closed"


async def test_a_budget_holds_under_concurrency(stage: Callable[..., Any]) -> None:
    """What is in flight counts at its upper bound; spent never passes the limit."""
    scene = await stage(latency_ms=5)
    client = await scene.client(daily_usd=0.02, requests_per_minute=None)
    results = await asyncio.gather(
        *(client.send(chat(f"text {n}")) for n in range(200)), return_exceptions=True
    )
    refused = sum(isinstance(result, BudgetExceeded) for result in results)
    assert 0 < refused < 200
    assert sum(cost or 0 for _, cost in scene.booked()) <= dollars_to_nusd(0.02)


async def test_embeddings_that_come_together_go_out_as_one(stage: Callable[..., Any]) -> None:
    """Ten callers, one call, ten right answers; the ledger has one entry."""
    scene = await stage()
    client = await scene.client()
    model = next(name for name in await client.models() if "embedding" in name)
    alone = await client.embeddings(["text 3"], model)
    before = scene.upstream.counts.by_path["/v1/embeddings"]
    vectors = await asyncio.gather(*(client.embeddings([f"text {n}"], model) for n in range(10)))
    assert scene.upstream.counts.by_path["/v1/embeddings"] - before == 1
    assert vectors[3] == alone
    assert len({tuple(vector[0]) for vector in vectors}) == 10
    assert fates(scene) == [SETTLED, SETTLED]


async def test_merging_embeddings_can_be_turned_off(stage: Callable[..., Any]) -> None:
    """Then each is a call of its own."""
    scene = await stage()
    client = await scene.client(options=ClientOptions(merge_embeddings=False))
    model = next(name for name in await client.models() if "embedding" in name)
    await asyncio.gather(*(client.embeddings([f"text {n}"], model) for n in range(4)))
    assert scene.upstream.counts.by_path["/v1/embeddings"] == 4


async def test_a_merged_caller_keeps_its_own_deadline(stage: Callable[..., Any]) -> None:
    """One leaves, the other gets its answer."""
    scene = await stage(latency_ms=300)
    client = await scene.client()
    model = next(name for name in await client.models() if "embedding" in name)
    hasty = asyncio.ensure_future(client.embeddings(["a"], model, deadline_s=0.1))
    patient = asyncio.ensure_future(client.embeddings(["b"], model))
    with pytest.raises(DeadlineExceeded):
        await hasty
    assert len(await patient) == 1


async def test_chat_requests_are_merged_only_where_asked(stage: Callable[..., Any]) -> None:
    """Whatever becomes of the merged call, each caller gets an answer."""
    scene = await stage()
    client = await scene.client()
    await asyncio.gather(*(client.send(chat(f"text {n}")) for n in range(3)))
    assert scene.upstream.counts.arrivals == 3
    answers = await asyncio.gather(*(client.send(chat(f"text {n}", merge=True)) for n in range(3)))
    assert all(answer.json()["choices"] for answer in answers)


async def test_the_failure_of_a_shared_call_reaches_everybody(stage: Callable[..., Any]) -> None:
    """As an error of their own; the next request tries anew."""
    scene = await stage(latency_ms=50)
    client = await scene.client(with_cache=True)
    scene.upstream.faults.add(Fault("status", 503), count=4)
    results = await asyncio.gather(*(client.send(chat()) for _ in range(5)), return_exceptions=True)
    assert all(isinstance(result, MaxRetriesExceeded) for result in results)
    assert len({id(result) for result in results}) == 5
    assert scene.upstream.counts.arrivals == 4
    assert (await client.send(chat())).status == 200

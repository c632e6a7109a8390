"""What the public client tells of its requests: events and statistics."""

from __future__ import annotations

import asyncio
import json

import pytest

from ai_client import AIAPIClient
from ai_client.calls.routing import ImportanceRouting
from ai_client.contract.events import Event, Failed, Settled
from ai_client.contract.request import Importance
from ai_client.contract.statistics import MOST_MODELS, OTHER_MODELS, Statistics
from ai_client.errors import (
    BadRequestError,
    ModelNotFoundError,
)
from ai_client.testing import Simulator, SimulatorOptions
from ai_client.testing.faults import Fault

KEY = "hs_test_0123456789abcdef"
HELLO = [{"role": "user", "content": "hello there"}]


async def test_statistics_of_made_up_models_are_bounded() -> None:
    """Callers name models; the counters are kept for so many."""
    statistics = Statistics()
    for number in range(2 * MOST_MODELS):
        statistics.attempt_ended(f"m-{number}", is_error=True)
    told = statistics.as_dict()
    assert len(told["requests"]) == MOST_MODELS + 1
    assert told["errors"][OTHER_MODELS] == MOST_MODELS
    assert told["total_requests"] == told["total_errors"] == 2 * MOST_MODELS


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
    assert (stats["requests"], stats["errors"]) == ({"gpt-4.1": 4}, {"gpt-4.1": 1})
    assert (stats["total_requests"], stats["total_errors"], stats["error_rate"]) == (4, 1, 0.25)
    assert (stats["requests_ended"], stats["requests_failed"]) == (4, 1)
    assert stats["input_tokens"] > 0
    assert stats["models"]["gpt-4.1"] == {"concurrency_limit": 50, "breaker": "closed"}
    json.dumps({**stats, "routing": None})


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

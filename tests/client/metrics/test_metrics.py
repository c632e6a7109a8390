"""Metrics: their names and numbers, bounded cardinality, and what `promtool` says of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from ai_client.contract.events import BreakerChanged, CacheMissed, Failed, Settled
from ai_client.contract.request import Usage
from ai_client.metrics import HistogramFamily, Recorder
from ai_client.metrics.families import OTHER, Bounded
from ai_client.testing import Simulator
from tests.client import event_samples
from tests.client.event_samples import tell
from tests.client.service_rig import Rig, program, running_service

CHAT = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}


def settled(**changes: Any) -> Settled:
    """A request that went well."""
    facts = {"latency_s": 0.5, "waited_s": 0.1, "upstream_s": 0.3995, "usage": Usage(10, 5), "cost_usd": 0.25}
    return event_samples.settled(**(facts | changes))


def samples(recorder: Recorder) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """What a scrape would see."""
    registry = CollectorRegistry()
    registry.register(recorder)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


@pytest.fixture
def recorder() -> Recorder:
    """Of a provider with one known model and tenant."""
    return Recorder(provider="example.org", models=["gpt-4.1"], tenants=["web"])


def test_a_request_is_counted_with_tokens_cost_and_time(recorder: Recorder) -> None:
    """By OpenTelemetry's names where there is one."""
    tell(recorder, settled())
    found = samples(recorder)
    operation = (
        ("gen_ai_operation_name", "chat"),
        ("gen_ai_provider_name", "example.org"),
        ("gen_ai_request_model", "gpt-4.1"),
    )
    assert found["gen_ai_client_operation_duration_seconds_sum", (("error_type", ""), *operation)] == 0.5
    tokens = {kind: (*operation, ("gen_ai_token_type", kind)) for kind in ("input", "output")}
    assert found["gen_ai_client_token_usage_sum", tokens["input"]] == 10
    assert found["gen_ai_client_token_usage_sum", tokens["output"]] == 5
    assert found["ai_client_cost_usd_total", (("model", "gpt-4.1"), ("tenant", "web"))] == 0.25
    assert found["ai_client_requests_total", (("code", "200"), ("model", "gpt-4.1"), ("tenant", "web"))] == 1
    assert found["ai_client_overhead_seconds_bucket", (("le", "0.001"),)] == 1


def test_a_cached_answer_uses_no_tokens(recorder: Recorder) -> None:
    """They were counted when the answer was bought."""
    tell(recorder, settled(cached=True, cost_usd=0.0))
    assert not [name for name, _ in samples(recorder) if name.startswith("gen_ai_client_token_usage_")]


def test_a_failure_is_counted_by_its_code(recorder: Recorder) -> None:
    """The error's code is the type of the convention."""
    facts = {
        name: getattr(settled(), name) for name in Failed.__struct_fields__ if hasattr(settled(), name)
    } | {"error": "ServerError", "code": "upstream_server_error", "status": 503, "billed_unknown": True}
    tell(recorder, Failed(**facts))
    found = samples(recorder)
    assert found["ai_client_billed_unknown_total", ()] == 1
    labels = (("code", "upstream_server_error"), ("model", "gpt-4.1"), ("tenant", "web"))
    assert found["ai_client_requests_total", labels] == 1


def test_state_is_a_gauge(recorder: Recorder) -> None:
    """The last word counts."""
    for after in ("open", "half-open", "closed", "open"):
        tell(recorder, BreakerChanged(at=0.0, model="gpt-4.1", before="closed", after=after))
    recorder.reloaded(is_ok=True)
    recorder.reloaded(is_ok=False)
    found = samples(recorder)
    assert found["ai_client_breaker_state", (("model", "gpt-4.1"),)] == 2
    assert found["ai_client_config_last_reload_successful", ()] == 0
    assert found["ai_client_config_reloads_total", (("outcome", "failed"),)] == 1


def test_callers_can_not_make_endless_series(recorder: Recorder) -> None:
    """Models and tenants are texts that callers choose."""
    for number in range(1000):
        tell(recorder, settled(model=f"model-{number}", tenant=f"uid-{number}"))
    requests = [labels for name, labels in samples(recorder) if name == "ai_client_requests_total"]
    assert len({dict(labels)["model"] for labels in requests}) <= 51
    assert len({dict(labels)["tenant"] for labels in requests}) <= 101
    assert OTHER in {dict(labels)["model"] for labels in requests}


def test_known_values_keep_their_place_whoever_comes_first() -> None:
    """The bound never hides a configured tenant."""
    bounded = Bounded(["known"], limit=2)
    assert [bounded(value) for value in ("a", "b", "known", "a")] == ["a", OTHER, "known", "a"]


def test_a_quantile_is_the_bound_of_its_bucket() -> None:
    """None without any value."""
    family = HistogramFamily("x_seconds", "X.", bounds=(0.1, 1.0))
    assert family.quantile(0.5) is None
    for value in (0.05, 0.05, 0.5, 5.0):
        family.observe((), value)
    assert (family.quantile(0.5), family.quantile(0.75), family.quantile(1.0)) == (0.1, 1.0, float("inf"))


def test_an_event_without_a_metric_is_let_pass(recorder: Recorder) -> None:
    """Every event comes by."""
    tell(recorder, CacheMissed(at=0.0, request_id="r", tenant="web", model="gpt-4.1", endpoint="embeddings"))
    assert samples(recorder)["ai_client_cache_lookups_total", (("outcome", "miss"),)] == 1


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """A running service."""
    async with Simulator() as simulator, running_service(tmp_path, simulator) as running:
        yield running


async def test_promtool_finds_nothing_wrong_with_the_services_metrics(rig: Rig) -> None:
    """`promtool check metrics`, after traffic that touches them."""
    async with rig.client() as client:
        await client.post("/v1/chat/completions", json=CHAT)
        await client.post("/v1/chat/completions", json=CHAT | {"x_simulator_fault": "400"})
        await client.post("/v1/chat/completions", json=CHAT | {"stream": True})
    async with httpx.AsyncClient() as client:
        scraped = await client.get(f"http://127.0.0.1:{rig.metrics_port}/metrics")
    process = await asyncio.create_subprocess_exec(
        program("promtool", package="prometheus"),
        *("check", "metrics"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate(scraped.content)
    assert (process.returncode, output.decode()) == (0, "")
    assert 'ai_client_build_info{version="1.0.0"} 1.0' in scraped.text

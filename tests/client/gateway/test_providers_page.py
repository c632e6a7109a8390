"""Every configuration of docs/how-to/providers.md, through the real service, in front of a likeness of its provider."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import pytest_asyncio

from ai_client.cli.arguments import PROVIDERS
from ai_client.settings import loads
from ai_client.testing import Simulator, SimulatorOptions
from ai_client.testing.likeness import LIKENESSES, THOUGHT_TOKENS
from tests.client.service_rig import Rig, running_service, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGE = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "providers.md"
BLOCKS = re.findall(r"```ini\n(.*?)```", PAGE.read_text(), re.DOTALL)
UPSTREAMS = {each.name: each for block in BLOCKS for each in loads(block, path="page").upstreams}
ANSWER_TOKENS = 5
THINKING_BESIDE = {"gemini", "vertex", "xai"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    """A service with all of them, each in front of its likeness."""
    environment, blocks = {}, []
    async with AsyncExitStack() as stack:
        default = await stack.enter_async_context(Simulator())
        for name, block in zip(UPSTREAMS, BLOCKS, strict=True):
            provider = await stack.enter_async_context(Simulator(SimulatorOptions(like=name)))
            real = UPSTREAMS[name].base_url
            host = f"http://127.0.0.1:{provider.port}"
            blocks.append(block.replace(real, host + urlsplit(real).path))
            environment[f"AI_CLIENT_API_KEY_{name.upper()}"] = f"hs_test_of_{name}"
        extra = "rate_limit = 60000\n" + "\n".join(blocks)
        folder = tmp_path_factory.mktemp("providers")
        yield await stack.enter_async_context(
            running_service(folder, default, extra=extra, environment=environment)
        )


def audit(rig: Rig) -> list[dict[str, object]]:
    """The calls in the trail."""
    lines = [
        line for path in sorted(rig.folder.glob("log/audit-*")) for line in path.read_text().splitlines()
    ]
    return [call for line in lines if "endpoint" in (call := json.loads(line))]


async def test_the_page_has_every_likeness() -> None:
    """And the command line knows them all."""
    assert set(UPSTREAMS) == set(LIKENESSES) - {""} == set(PROVIDERS)
    for name, likeness in LIKENESSES.items():
        if name:
            assert urlsplit(UPSTREAMS[name].base_url).path == likeness.prefix


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", UPSTREAMS)
async def test_a_provider_answers_and_is_counted(rig: Rig, name: str, stream: bool) -> None:
    """The same words in the same number of tokens, however they are told; what is thought beside them is billed."""
    model = f"{name}/{next(iter(UPSTREAMS[name].models))}"
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "hello world"}],
        "max_tokens": ANSWER_TOKENS,
    }
    before = len(audit(rig))
    async with rig.tcp_client() as client:
        answer = await client.post("/v1/chat/completions", json=body | {"stream": stream})
    assert answer.status_code == 200, answer.text
    if stream:
        events = [json.loads(line[5:]) for line in answer.text.splitlines() if line.startswith("data: {")]
        text = "".join(c["delta"].get("content") or "" for event in events for c in event["choices"])
    else:
        text = answer.json()["choices"][0]["message"]["content"]
    assert text == "hello world hello world hello"
    await until(lambda: len(audit(rig)) > before, what="the audit line")
    call = audit(rig)[-1]
    thought = THOUGHT_TOKENS if name in THINKING_BESIDE else 0
    assert (call["model"], call["input_tokens"]) == (model, 3)
    assert call["output_tokens"] == ANSWER_TOKENS + thought


@pytest.mark.parametrize("name", UPSTREAMS)
async def test_a_providers_error_is_told(rig: Rig, name: str) -> None:
    """A model that it does not have, in whatever form it says so."""
    body = {"model": f"{name}/none-of-its", "messages": [{"role": "user", "content": "hello"}]}
    async with rig.tcp_client() as client:
        answer = await client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 404, answer.text
    assert "none-of-its" in answer.json()["error"]["message"]


@pytest.mark.parametrize("name", [name for name, each in LIKENESSES.items() if each.tells_tier])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_dearer_tier_is_told(rig: Rig, name: str, stream: bool) -> None:
    """As it was asked for."""
    model = f"{name}/{next(iter(UPSTREAMS[name].models))}"
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "service_tier": "priority"}
    async with rig.tcp_client() as client:
        answer = await client.post("/v1/chat/completions", json=body | {"stream": stream})
    assert answer.status_code == 200, answer.text
    assert '"service_tier":"priority"' in answer.text


async def test_a_message_tells_its_place_its_speed_and_its_searches(rig: Rig) -> None:
    """Anthropic's usage."""
    body = {
        "model": "anthropic/claude-sonnet-4-5",
        "max_tokens": 5,
        "messages": [{"role": "user", "content": "hello"}],
        "inference_geo": "us",
        "speed": "fast",
        "tools": [{"type": "web_search_20250305", "name": "web_search"}],
    }
    async with rig.tcp_client() as client:
        usage = (await client.post("/v1/messages", json=body)).json()["usage"]
    assert (usage["inference_geo"], usage["speed"]) == ("us", "fast")
    assert usage["server_tool_use"] == {"web_search_requests": 1}


async def test_a_response_tells_its_tier_and_its_searches(rig: Rig) -> None:
    """OpenAI's."""
    body = {
        "model": "openai/gpt-4.1",
        "input": "hello",
        "service_tier": "priority",
        "tools": [{"type": "web_search"}],
    }
    async with rig.tcp_client() as client:
        answer = (await client.post("/v1/responses", json=body)).json()
    assert answer["service_tier"] == "priority"
    assert answer["tool_usage"] == {"web_search": {"num_requests": 1}}


async def test_a_source_that_is_read_is_told(rig: Rig) -> None:
    """xAI's."""
    body = {"model": "xai/grok-4", "messages": [{"role": "user", "content": "hello"}]}
    async with rig.tcp_client() as client:
        answer = await client.post("/v1/chat/completions", json=body | {"search_parameters": {"mode": "on"}})
    assert answer.json()["usage"]["num_sources_used"] == 1


@pytest.mark.parametrize("name", [name for name, each in LIKENESSES.items() if each.compresses])
async def test_a_whole_answer_is_compressed_for_who_takes_it(name: str) -> None:
    """And not for others."""
    body = {"model": LIKENESSES[name].models[0], "messages": [{"role": "user", "content": "hello"}]}
    async with Simulator(SimulatorOptions(like=name)) as simulator, httpx.AsyncClient() as client:
        url = f"{simulator.base_url}/chat/completions"
        encodings = [
            (await client.post(url, json=body, headers={"accept-encoding": taken})).headers.get(
                "content-encoding"
            )
            for taken in ("gzip, deflate", "identity")
        ]
    assert encodings == ["gzip", None]

"""The Responses API and Anthropic's Messages API, by their own SDKs, unmodified, against the real service."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import anthropic
import openai
import pytest
import pytest_asyncio
from pydantic import BaseModel

from tests.client.service_rig import TOKEN, Rig, until

TOOL = {"type": "object", "properties": {"city": {"type": "string"}}}

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Reply(BaseModel):
    """What a structured answer looks like."""

    answer: str


@pytest_asyncio.fixture(loop_scope="module")
async def claude(rig: Rig) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """Anthropic's: its key, in `x-api-key`, is the caller's token."""
    async with anthropic.AsyncAnthropic(base_url=f"http://127.0.0.1:{rig.port}", api_key=TOKEN) as client:
        yield client


def audit_of(rig: Rig) -> list[dict[str, object]]:
    """The calls in the trail."""
    lines = [
        line for path in sorted(rig.folder.glob("log/audit-*")) for line in path.read_text().splitlines()
    ]
    return [call for line in lines if "endpoint" in (call := json.loads(line))]


async def test_a_response(sdk: openai.AsyncOpenAI) -> None:
    """Text and usage as the SDK reads them."""
    answer = await sdk.responses.create(model="gpt-4.1", input="hello world", max_output_tokens=16)
    assert answer.output_text.startswith("hello world")
    assert answer.usage is not None
    assert answer.usage.output_tokens == 16


async def test_a_streamed_response(sdk: openai.AsyncOpenAI) -> None:
    """Every event comes as it was sent, the last one whole."""
    stream = await sdk.responses.create(
        model="gpt-4.1", input="hello world", max_output_tokens=16, stream=True
    )
    events = [event async for event in stream]
    texts = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert events[-1].type == "response.completed"
    assert "".join(texts) == events[-1].response.output_text


async def test_tools_and_structured_output(sdk: openai.AsyncOpenAI) -> None:
    """A function call comes back, and a parsed object."""
    weather = {"type": "function", "name": "weather", "parameters": TOOL, "strict": False}
    answer = await sdk.responses.create(model="gpt-4.1", input="weather?", tools=[weather])
    assert [(item.type, item.name) for item in answer.output] == [("function_call", "weather")]
    parsed = await sdk.responses.parse(model="gpt-4.1", input="hello", text_format=Reply)
    assert parsed.output_parsed is not None
    assert parsed.output_parsed.answer.startswith("hello")


async def test_the_life_of_a_stored_response(sdk: openai.AsyncOpenAI) -> None:
    """It is retrieved, its input listed, continued, cancelled and deleted; then it is gone."""
    made = await sdk.responses.create(model="gpt-4.1", input="first")
    assert (await sdk.responses.retrieve(made.id)).id == made.id
    items = await sdk.responses.input_items.list(made.id)
    assert items.data[0].content[0].text == "first"
    following = await sdk.responses.create(model="gpt-4.1", input="second", previous_response_id=made.id)
    assert following.previous_response_id == made.id
    assert (await sdk.responses.cancel(made.id)).status == "cancelled"
    await sdk.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        await sdk.responses.retrieve(made.id)


async def test_a_message(claude: anthropic.AsyncAnthropic) -> None:
    """Text and usage as the SDK reads them."""
    answer = await claude.messages.create(
        model="claude-sonnet-4.5", max_tokens=8, messages=[{"role": "user", "content": "hello world"}]
    )
    assert answer.content[0].text.startswith("hello world")
    assert answer.usage.output_tokens == 8


async def test_a_streamed_message(claude: anthropic.AsyncAnthropic) -> None:
    """The SDK's own reader puts it together."""
    async with claude.messages.stream(
        model="claude-sonnet-4.5", max_tokens=4, messages=[{"role": "user", "content": "hello world"}]
    ) as stream:
        texts = [text async for text in stream.text_stream]
        final = await stream.get_final_message()
    assert "".join(texts) == "hello world hello world"
    assert final.usage.output_tokens == 4


async def test_tool_use_and_counting(claude: anthropic.AsyncAnthropic) -> None:
    """A tool is used, and tokens are counted without being billed."""
    messages = [{"role": "user", "content": "weather in Paris?"}]
    tool = {"name": "weather", "input_schema": TOOL}
    answer = await claude.messages.create(
        model="claude-sonnet-4.5", max_tokens=99, messages=messages, tools=[tool]
    )
    assert (answer.stop_reason, answer.content[0].name) == ("tool_use", "weather")
    counted = await claude.messages.count_tokens(model="claude-sonnet-4.5", messages=messages)
    assert counted.input_tokens > 0


async def test_errors_are_the_sdks_own(claude: anthropic.AsyncAnthropic, rig: Rig) -> None:
    """Upstream's and the gateway's alike: Anthropic's SDK tells them by the type in the body."""
    messages = [{"role": "user", "content": "hello"}]
    with pytest.raises(anthropic.NotFoundError) as missing:
        await claude.messages.create(model="claude-9", max_tokens=8, messages=messages)
    assert missing.value.type == "not_found_error"
    with pytest.raises(anthropic.BadRequestError) as bad:
        await claude.messages.create(model="claude-sonnet-4.5", max_tokens=8, messages=[])
    assert bad.value.type == "invalid_request_error"
    async with anthropic.AsyncAnthropic(base_url=f"http://127.0.0.1:{rig.port}", api_key="wrong") as stranger:
        with pytest.raises(anthropic.AuthenticationError) as refused:
            await stranger.messages.create(model="claude-sonnet-4.5", max_tokens=8, messages=messages)
    assert refused.value.type == "authentication_error"


async def test_it_is_metered_and_audited(
    sdk: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic, rig: Rig
) -> None:
    """The trail has the tokens and the cost of a response and of a message, streamed or not."""
    before = len(audit_of(rig))
    await sdk.responses.create(model="gpt-4.1", input="hello world", max_output_tokens=5)
    stream = await sdk.responses.create(
        model="gpt-4.1", input="hello world", max_output_tokens=6, stream=True
    )
    async for _ in stream:
        pass
    body = {"model": "claude-sonnet-4.5", "messages": [{"role": "user", "content": "hello world"}]}
    await claude.messages.create(max_tokens=7, **body)
    async with claude.messages.stream(max_tokens=8, **body) as events:
        await events.get_final_message()
    await until(lambda: len(audit_of(rig)) >= before + 4, what="the audit lines")
    last = [(call["endpoint"], call["output_tokens"]) for call in audit_of(rig)[-4:]]
    assert last == [("responses", 5), ("responses", 6), ("messages", 7), ("messages", 8)]
    costs = [call["cost_usd"] for call in audit_of(rig)[-4:]]
    assert costs == pytest.approx([(3 + 5) * 8e-6, (3 + 6) * 8e-6, (3 + 7) * 15e-6, (3 + 8) * 15e-6])

"""The OpenAI SDK, unmodified, against the gateway: only its base_url is changed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx
import openai
import pytest

from ai_client.testing import Simulator
from tests.client.service_rig import Rig

MESSAGES = [{"role": "user", "content": "hello world"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def sync_sdk(rig: Rig) -> Iterator[openai.OpenAI]:
    """Synchronous, over the Unix socket, where the key means nothing."""
    transport = httpx.HTTPTransport(uds=str(rig.socket))
    with openai.OpenAI(
        base_url="http://localhost/v1", api_key="unused", http_client=httpx.Client(transport=transport)
    ) as client:
        yield client


async def test_a_plain_answer(sdk: openai.AsyncOpenAI) -> None:
    """Content and usage."""
    answer = await sdk.chat.completions.create(model="gpt-4.1", messages=MESSAGES, max_tokens=2)
    assert answer.choices[0].message.content == "hello world"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2


async def test_a_stream(sdk: openai.AsyncOpenAI) -> None:
    """The pieces join to the whole, and usage comes last where it is asked for."""
    stream = await sdk.chat.completions.create(
        model="gpt-4.1", messages=MESSAGES, max_tokens=3, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert (
        "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        == "hello world hello"
    )
    assert chunks[-1].usage is not None


async def test_a_tool_call(sdk: openai.AsyncOpenAI) -> None:
    """Tools go up and tool calls come down untouched."""
    answer = await sdk.chat.completions.create(model="gpt-4.1", messages=MESSAGES, tools=[WEATHER])
    [call] = answer.choices[0].message.tool_calls or []
    assert (call.type, call.function.name) == ("function", "weather")


async def test_a_streamed_tool_call(sdk: openai.AsyncOpenAI) -> None:
    """The same in pieces."""
    stream = await sdk.chat.completions.create(
        model="gpt-4.1", messages=MESSAGES, tools=[WEATHER], stream=True
    )
    names = [
        call.function.name
        async for chunk in stream
        for call in chunk.choices[0].delta.tool_calls or []
        if call.function
    ]
    assert names == ["weather"]


async def test_json_mode(sdk: openai.AsyncOpenAI) -> None:
    """response_format passes through."""
    answer = await sdk.chat.completions.create(
        model="gpt-4.1", messages=MESSAGES, max_tokens=1, response_format={"type": "json_object"}
    )
    assert answer.choices[0].message.content == '{"answer": "hello"}'


async def test_embeddings(sdk: openai.AsyncOpenAI) -> None:
    """The SDK asks for base64 and decodes it."""
    answer = await sdk.embeddings.create(model="text-embedding-3-small", input=["one", "two"])
    assert [len(item.embedding) for item in answer.data] == [8, 8]
    assert answer.data[0].embedding != answer.data[1].embedding


async def test_completions_and_models(sdk: openai.AsyncOpenAI) -> None:
    """The older endpoint, and the list."""
    answer = await sdk.completions.create(model="gpt-4.1", prompt="hello", max_tokens=2)
    assert answer.choices[0].text == "hello hello"
    assert "gpt-4.1" in [model.id async for model in sdk.models.list()]


async def test_the_synchronous_sdk_over_the_socket(sync_sdk: openai.OpenAI) -> None:
    """No token: the caller is known by its uid."""

    def ask() -> tuple[str | None, str]:
        plain = sync_sdk.chat.completions.create(model="gpt-4.1", messages=MESSAGES, max_tokens=2)
        stream = sync_sdk.chat.completions.create(
            model="gpt-4.1", messages=MESSAGES, max_tokens=2, stream=True
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        return plain.choices[0].message.content, text

    assert await asyncio.to_thread(ask) == ("hello world", "hello world")


async def test_an_unknown_model_is_the_sdks_not_found_error(sdk: openai.AsyncOpenAI) -> None:
    """Status and code as OpenAI has them."""
    with pytest.raises(openai.NotFoundError) as caught:
        await sdk.chat.completions.create(model="gpt-9", messages=MESSAGES)
    assert caught.value.code == "model_not_found"


async def test_the_sdk_does_not_retry_on_top_of_the_service(
    sdk: openai.AsyncOpenAI, simulator: Simulator
) -> None:
    """One retry layer: the SDK is told so with every final failure."""
    with pytest.raises(openai.BadRequestError):
        await sdk.chat.completions.create(model="gpt-4.1", messages=[])
    assert simulator.counts.arrivals == 0
    with pytest.raises(openai.APIStatusError):
        await sdk.chat.completions.create(
            model="gpt-4.1", messages=MESSAGES, extra_body={"x_simulator_fault": "400"}
        )
    assert simulator.counts.arrivals == 1


async def test_a_stream_that_breaks_off_is_an_error_and_no_short_answer(sdk: openai.AsyncOpenAI) -> None:
    """The caller must not take half an answer for a whole one."""
    stream = await sdk.chat.completions.create(
        model="gpt-4.1", messages=MESSAGES, stream=True, extra_body={"x_simulator_fault": "cut"}
    )
    with pytest.raises(openai.APIError, match=r"before the answer was whole"):
        async for _ in stream:
            pass
